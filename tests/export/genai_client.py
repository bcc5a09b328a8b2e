"""A client that knows onnxruntime-genai and nothing of this package: greedy tokens for prompts, under a preset or none.

    python genai_client.py BUNDLE < requests.json > replies.json

A request is {"ids": [...], "max_new_tokens": n, "preset": file or null}; a reply is its tokens; the end token,
which onnxruntime-genai does not append, is left out.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai


def reply(model: Any, adapters: Any, request: dict[str, Any]) -> list[int]:
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(request["ids"]) + request["max_new_tokens"], do_sample=False)
    generator = onnxruntime_genai.Generator(model, params)
    if request["preset"]:
        generator.set_active_adapter(adapters, request["preset"])
    generator.append_tokens(np.array(request["ids"], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(request["ids"]) :]


def main(folder: Path, requests: list[dict[str, Any]]) -> list[list[int]]:
    config = onnxruntime_genai.Config(str(folder))
    config.overlay('{"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}')
    model = onnxruntime_genai.Model(config)
    adapters = onnxruntime_genai.Adapters(model)
    for preset in sorted({request["preset"] for request in requests if request["preset"]}):
        adapters.load(preset, preset)
    return [reply(model, adapters, request) for request in requests]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.load(sys.stdin))))
