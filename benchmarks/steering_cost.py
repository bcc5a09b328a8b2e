"""Measures the cost of steering per token: the steered bundle compared with the plain one and with guidance by models.

    python benchmarks/steering_cost.py --work bench --prompt 32 --new 128 --batches 1,8 --runs 5

The base, a random Llama of 94 M parameters (as in decode.py), runs in seven systems: its plain bundle; its steered and
gated bundle; PARM with two plain bundles on ONNX Runtime (log-probabilities of base and reward model are added); and in
transformers the base alone, PARM (a PBLoRA reward model of five attributes, as a second model, and in one model with
two rows per request) and GenARM (five models). Every system runs in its own process with the same number of threads;
systems answer in turn, one at a time. Prints medians of tokens per second (including the prompt) and of their ratios
per turn, peak memory, and whether the required ratios are reached.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import decode
import numpy as np
from decode_systems import ours
from workers import Worker

ATTRIBUTES = ("empathy", "sensitivity", "non_judgmental", "truthfulness", "helpfulness")
PLAIN, STEERED, TWO = "a: plain bundle", "b: steered and gated bundle", "c: PARM, two bundles"
ALONE, PARM, ROWS = "transformers, base alone", "d: PARM, transformers", "d: PARM, two rows in one model"
GENARM = "d: GenARM, transformers"
FLOORS = ((STEERED, PLAIN, 0.97), (STEERED, TWO, 1.7))
MEMORY_CEILING = 1.05
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}

Reply = list[list[int]]
System = Callable[[list[list[int]], int], Reply]


def make(work: Path) -> None:
    """Write the base, a reward model for the two-model system, and the bundles, unless they exist."""
    if (work / "done").is_file():
        return
    import torch

    from prosocial.editing.checkpoints import load_model
    from prosocial.export import export_bundle

    decode.make_model(work / "model", "llama")
    decode.make_bundles(work)
    reward = load_model(work / "model")
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in reward.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))
    reward.save_pretrained(work / "reward")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (work / "reward" / name).write_bytes((work / "model" / name).read_bytes())
    export_bundle(work / "reward", work / "plain-reward", plain=True)
    (work / "done").touch()


def bundle(name: str) -> Callable[[Path, int], System]:
    """Return a factory of our runtime on one bundle."""

    def make_system(work: Path, threads: int) -> System:
        run = ours(work / name, threads)
        return lambda prompts, n_new: run(prompts, n_new)[1]

    return make_system


def two_bundles(work: Path, threads: int) -> System:
    """Return PARM on ONNX Runtime: two plain bundles, `log pi + log pi_p` for every token."""
    from prosocial.export.runtime.bundle import Bundle

    bundles = [Bundle.open(work / name, threads=threads) for name in ("plain", "plain-reward")]

    def run(prompts: list[list[int]], n_new: int) -> Reply:
        ids = np.array(prompts)
        capacity = len(prompts[0]) + n_new
        streams = [one.engine.prefill(ids, None, capacity=capacity) for one in bundles]
        chosen = [_best(streams)]
        while len(chosen) < n_new:
            for stream in streams:
                stream.step(chosen[-1])
            chosen.append(_best(streams))
        return [[int(token) for token in row] for row in np.stack(chosen, axis=1)]

    return run


def _best(streams: Sequence[Any]) -> np.ndarray:
    """Return the token [B] with the highest sum of the streams' log-softmax."""
    logits = [stream.decision.logits for stream in streams]
    return np.asarray((logits[0] + logits[1]).argmax(-1))


def transformers(form: str) -> Callable[[Path, int], System]:
    """Return a factory of transformers' `generate` in float32, guided by our logits processors."""

    def make_system(work: Path, threads: int) -> System:
        import torch
        from transformers import AutoModelForCausalLM

        from prosocial.evaluation.guided import genarm, parm, shared_rows
        from prosocial.training.reward import RewardConfig, RewardModel

        torch.set_num_threads(threads)

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()

        base = None if form == ROWS else load()
        reward = RewardModel(load(), RewardConfig(attributes=ATTRIBUTES)) if form in (PARM, ROWS) else None
        models = [load() for _ in ATTRIBUTES] if form == GENARM else []

        def run(prompts: list[list[int]], n_new: int) -> Reply:
            ids = torch.tensor(prompts)
            mask = torch.ones_like(ids)
            preference = torch.full((len(ids), len(ATTRIBUTES)), 1.0 / len(ATTRIBUTES))
            guidance: list[Any] = []
            if form == PARM and reward is not None:
                guidance = [parm(reward, preference, attention_mask=mask)]
            if form == GENARM:
                guidance = [genarm(models, [1.0 / len(models)] * len(models), attention_mask=mask)]
            shared = shared_rows(reward, preference) if form == ROWS and reward is not None else nullcontext(base)
            with torch.inference_mode(), shared as model:
                out = model.generate(
                    ids, attention_mask=mask, max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False,
                    logits_processor=guidance, pad_token_id=decode.END,
                )  # fmt: skip
            found: Reply = out[:, ids.shape[1] :].tolist()
            return found

        return run

    return make_system


SYSTEMS: Mapping[str, Callable[[Path, int], System]] = {
    PLAIN: bundle("plain"),
    STEERED: bundle("steered"),
    TWO: two_bundles,
    ALONE: transformers(ALONE),
    PARM: transformers(PARM),
    ROWS: transformers(ROWS),
    GENARM: transformers(GENARM),
}


def serve(name: str, work: Path, threads: int) -> None:
    """Answer requests from standard input until its end."""
    system = SYSTEMS[name](work, threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        reply = system(request["prompts"], request["n_new"])
        seconds = time.perf_counter() - start
        assert {len(row) for row in reply} == {request["n_new"]}
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int:
    """Return the peak memory of this process on Linux (ru_maxrss would include the parent's peak before exec)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@dataclass
class Timed(Worker):
    """A system and its seconds per turn, by batch size."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def ask(self, batch: int, request: Mapping[str, Any], *, warming: bool) -> None:
        """Run one request and record its time, unless it is a warm-up."""
        answer = self.request(request)
        if not warming:
            self.seconds.setdefault(batch, []).append(answer["seconds"])


def measure(work: Path, arguments: argparse.Namespace) -> list[Timed]:
    """Run every request on every system; the order of systems rotates by one each turn."""
    threads = str(arguments.threads)
    serve = [sys.executable, __file__, "--work", str(work), "--threads", threads, "--serve"]
    chosen = [name for name in SYSTEMS if name in arguments.systems.split(";")]
    workers = [Timed.start(name, [*serve, name], arguments.threads) for name in chosen]
    numbers = np.random.default_rng(0)
    batches = [int(size) for size in arguments.batches.split(",")]
    prompts = {size: numbers.integers(2, decode.VOCABULARY, (size, arguments.prompt)).tolist() for size in batches}
    for turn in range(arguments.runs + 1):
        at = turn % len(workers)
        for size in batches:
            for worker in workers[at:] + workers[:at]:
                request = {"prompts": prompts[size], "n_new": arguments.new}
                worker.ask(size, request, warming=turn == 0)
    for worker in workers:
        worker.stop()
    return workers


def speed_ratio(fast: Timed, slow: Timed, batch: int) -> float:
    """Return the speed of the first relative to the second: the median of the ratios per turn."""
    return statistics.median(theirs / own for own, theirs in zip(fast.seconds[batch], slow.seconds[batch], strict=True))


def report(workers: Sequence[Timed], arguments: argparse.Namespace) -> bool:
    """Print the table and the floors; return whether every measured floor holds."""
    by_name = {worker.name: worker for worker in workers}
    steered, holds = by_name[STEERED], True
    print(f"prompt {arguments.prompt}, {arguments.new} new tokens, {arguments.threads} threads, {arguments.runs} runs")
    for batch in steered.seconds:
        print(f"  batch {batch}: tokens per second, and how many times as fast b is")
        for worker in workers:
            speed = arguments.new * batch / statistics.median(worker.seconds[batch])
            print(f"    {worker.name:32} {speed:9.1f}  {speed_ratio(steered, worker, batch):6.3f}")
        for fast, slow, floor in FLOORS:
            if {fast, slow} <= by_name.keys():
                ratio = speed_ratio(by_name[fast], by_name[slow], batch)
                holds &= ratio >= floor
                print(f"    floor {floor} of '{slow}': {ratio:.3f}, {'holds' if ratio >= floor else 'DOES NOT HOLD'}")
    print("  peak memory of the process, MB, and b's share of it")
    for worker in workers:
        share = steered.peak_bytes / worker.peak_bytes
        print(f"    {worker.name:32} {worker.peak_bytes / 1e6:9.0f}  {share:6.3f}")
    if PLAIN in by_name:
        share = steered.peak_bytes / by_name[PLAIN].peak_bytes
        holds &= share <= MEMORY_CEILING
        word = "holds" if share <= MEMORY_CEILING else "DOES NOT HOLD"
        print(f"    ceiling {MEMORY_CEILING} of '{PLAIN}': {share:.3f}, {word}")
    return holds


def main() -> None:
    """Run the benchmark; exit with code 1 if a floor does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the model and its bundles; existing files are reused"
    )
    parser.add_argument("--prompt", type=int, default=32, help="prompt length in tokens")
    parser.add_argument("--new", type=int, default=128, help="number of new tokens")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--systems", default=";".join(SYSTEMS), help="separated by semicolons")
    parser.add_argument("--tiny", action="store_true", help="use a tiny model, to test the script")
    parser.add_argument("--serve", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tiny:
        decode.SIZES.update(TINY)
    work = arguments.work.absolute()
    if arguments.serve:
        serve(arguments.serve, work, arguments.threads)
        return
    make(work)
    raise SystemExit(0 if report(measure(work, arguments), arguments) else 1)


if __name__ == "__main__":
    main()
