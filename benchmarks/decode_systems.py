"""Runs one of the systems that `decode.py` compares: reads requests as JSON lines, answers with times and tokens.

    python benchmarks/decode_systems.py SYSTEM FOLDER THREADS

A request is {"prompts": [[ids, ...], ...], "n_new": N}, all prompts of one length; the answer {"seconds": [until the
first token, in all], "tokens": [[ids, ...], ...], "peak_bytes": of the whole process}.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Reply = tuple[float, list[list[int]]]  # seconds until the first token, and the tokens of each prompt
System = Callable[[list[list[int]], int], Reply]


def ours(folder: Path, threads: int) -> System:
    """Return our runtime on our bundle: the engine of `Bundle.generate`, with token ids as input like the others."""
    from prosocial.export.runtime.bundle import Bundle
    from prosocial.steering.decoding.controls import Steering, control_arrays

    bundle = Bundle.open(folder, threads=threads)

    def run(prompts: list[list[int]], n_new: int) -> Reply:
        start = time.perf_counter()
        controls = control_arrays(bundle.config, [Steering()] * len(prompts)) if bundle.config else None
        stream = bundle.engine.prefill(np.array(prompts), controls, capacity=len(prompts[0]) + n_new)
        chosen = [stream.decision.logits.argmax(-1)]
        first = time.perf_counter() - start
        while len(chosen) < n_new:
            stream.step(chosen[-1])
            chosen.append(stream.decision.logits.argmax(-1))
        return first, np.stack(chosen, axis=1).tolist()

    return run


def genai(folder: Path, threads: int) -> System:
    """onnxruntime-genai on a folder with a genai_config.json."""
    import onnxruntime_genai as og  # type: ignore[import-not-found,unused-ignore]  # only in its own environment

    config = og.Config(str(folder))
    options = {"session_options": {"intra_op_num_threads": threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = og.Model(config)

    def run(prompts: list[list[int]], n_new: int) -> Reply:
        start = time.perf_counter()
        parameters = og.GeneratorParams(model)
        length = len(prompts[0])
        parameters.set_search_options(max_length=length + n_new, do_sample=False, batch_size=len(prompts))
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array(prompts, np.int32))
        generator.generate_next_token()
        first = time.perf_counter() - start
        while not generator.is_done():
            generator.generate_next_token()
        return first, [generator.get_sequence(row)[length:].tolist() for row in range(len(prompts))]

    return run


def transformers(folder: Path, threads: int, *, guided: bool = False) -> System:
    """Return `generate` of transformers in float32; if guided, a second model's log-probabilities are added."""
    import torch
    from transformers import AutoModelForCausalLM, LogitsProcessorList

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reward = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) if guided else None

    def run(prompts: list[list[int]], n_new: int) -> Reply:
        times: list[float] = []
        processors = LogitsProcessorList([lambda _, scores: (times.append(time.perf_counter()), scores)[1]])
        if reward is not None:
            processors.append(RewardGuidance(reward))
        ids = torch.tensor(prompts)
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False,
                logits_processor=processors, pad_token_id=1,
            )  # fmt: skip
        return times[0] - start, out[:, ids.shape[1] :].tolist()

    return run


class RewardGuidance:
    """Adds the log-probabilities of an autoregressive reward model with its own cache (GenARM, arXiv 2410.08193)."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.cache = reward, None

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Return guided scores [B, V]."""
        new = ids if self.cache is None else ids[:, -1:]
        out = self.reward(input_ids=new, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return scores + out.logits[:, -1].log_softmax(-1)


SYSTEMS: dict[str, Callable[[Path, int], System]] = {
    "ours": ours,
    "genai": genai,
    "transformers": transformers,
    "guided": lambda folder, threads: transformers(folder, threads, guided=True),
}


def peak_bytes() -> int:
    """Return the peak resident memory of this process (rusage would include the parent's peak before exec)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Answer requests until the end of the input."""
    name, folder, threads = sys.argv[1:]
    system = SYSTEMS[name](Path(folder), int(threads))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        first, tokens = system(request["prompts"], request["n_new"])
        seconds = [first, time.perf_counter() - start]
        print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
