"""A client that knows onnxruntime-genai and nothing of this package: replies to prompts, with a preset or none.

    python genai_client.py BUNDLE < requests.json > replies.json

A request is {"ids": [...], "max_new_tokens": n, "preset": file or null}; a reply is its tokens without the end token.
The search settings are those of the bundle's `genai_config.json`, except the length.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Request = dict[str, Any]
TIMEOUT_SECONDS = 600


class ClientFailure(Exception):  # noqa: N818 - a verdict, not an error
    """onnxruntime-genai could not run the bundle."""


def is_installed() -> bool:
    """Return whether onnxruntime-genai is installed."""
    return find_spec("onnxruntime_genai") is not None


def genai_replies(folder: Path, requests: Sequence[Request]) -> list[list[int]]:
    """Return the reply to each request, made in a process of its own, which may crash.

    Raises:
        ClientFailure: onnxruntime-genai refuses the bundle, crashes or does not end.
    """
    command = [sys.executable, str(Path(__file__)), str(folder)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ClientFailure(f"onnxruntime-genai did not end within {TIMEOUT_SECONDS} seconds") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        raise ClientFailure(f"onnxruntime-genai failed with exit code {done.returncode}: {reason}")
    replies: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return replies


def reply(model: Any, adapters: Any, request: Request) -> list[int]:
    """Return the reply of an opened model to one request."""
    import onnxruntime_genai

    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(request["ids"]) + request["max_new_tokens"])
    generator = onnxruntime_genai.Generator(model, params)
    if request["preset"]:
        generator.set_active_adapter(adapters, request["preset"])
    generator.append_tokens(np.array(request["ids"], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(request["ids"]) :]


def main(folder: Path, requests: Sequence[Request]) -> list[list[int]]:
    """Open a bundle as its files say and answer the requests."""
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    adapters = onnxruntime_genai.Adapters(model)
    for preset in sorted({request["preset"] for request in requests if request["preset"]}):
        adapters.load(preset, preset)
    return [reply(model, adapters, request) for request in requests]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.load(sys.stdin))))
