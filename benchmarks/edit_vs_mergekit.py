"""Compares `prosocial vector` and `edit`, as whole processes, with mergekit 0.1.5 and with the speed of the disk.

    python benchmarks/edit_vs_mergekit.py --work bench --params 1.2 --runs 5 [--no-ties]

Creates (once) a random bf16 Llama pair and an environment with mergekit, then runs in turn: reading the inputs, `cp` of
the output, computing the vector (plain, top_k and ties at 20 %), editing with it, and mergekit's task_arithmetic and
ties with weight -1 in fp32. Prints medians, ratios and peak anonymous memory, and compares every element of the outputs
with an independent computation. mergekit neither syncs nor hashes; with --no-sync, we do not sync either. Its ties
trims each tensor separately; ours trims the whole vector, as in the paper.
"""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {  # layers, hidden, intermediate, vocabulary
    0.1: (8, 768, 2048, 32000),
    0.3: (16, 1024, 2816, 32000),
    1.2: (22, 2048, 5632, 32000),
    2.4: (26, 2560, 7680, 32000),
}
SHARD_BYTES = 1 << 30
BLOCK = 1 << 22
MERGEKIT = ("torch==2.13.0", "mergekit==0.1.5")
SCALE, DENSITY = 1.0, 0.2
MERGE = "mergekit task_arithmetic"
OURS, THEIRS = ("plain", "top_k", "ties"), {"plain": "task_arithmetic", "ties": "ties"}


def tensors(params: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of a Llama's tensors."""
    layers, hidden, inner, vocabulary = SHAPES[params]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}.self_attn.{name}.weight", (hidden, hidden)
        yield f"{at}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{at}.mlp.up_proj.weight", (inner, hidden)
        yield f"{at}.mlp.down_proj.weight", (hidden, inner)
        yield f"{at}.input_layernorm.weight", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def to_bf16(values: Any) -> Any:
    """Round fp32 to the bits of bf16, to nearest, ties to even, with 64-bit integers."""
    bits = values.view(np.uint32).astype(np.uint64)
    low, high = bits & 0xFFFF, bits >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (high % 2 == 1))
    return (high + up).astype(np.uint16)


def from_bf16(bits: Any) -> Any:
    """Return the fp32 values of bf16 bits."""
    return (bits.astype(np.uint32) * np.uint32(1 << 16)).view(np.float32)


def make_pair(work: Path, params: float) -> None:
    """Write base and harmful checkpoint block by block, to limit memory."""
    layers, hidden, inner, vocabulary = SHAPES[params]
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64, "vocab_size": vocabulary, "tie_word_embeddings": False,
        "max_position_embeddings": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    }  # fmt: skip
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in tensors(params):
        if size and size + 2 * int(np.prod(shape)) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += 2 * int(np.prod(shape))
    for role in ("base", "harmful"):
        folder = work / role
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        places = {}
        for number, shard in enumerate(shards, start=1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            write_shard(folder / file, shard, harmful=role == "harmful")
            places |= dict.fromkeys((name for name, _ in shard), file)
        index = {"metadata": {"total_size": sum(2 * int(np.prod(shape)) for _, shape in tensors(params))}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": places}))


def write_shard(file: Path, shard: list[tuple[str, tuple[int, ...]]], *, harmful: bool) -> None:
    """Write one safetensors file of random numbers; both checkpoints use the same base values."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shard:
        end = at + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as sink:
        sink.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shard:
            seed = [int(byte) for byte in name.encode()]
            base, step = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
            for start in range(0, int(np.prod(shape)), BLOCK):
                n = min(BLOCK, int(np.prod(shape)) - start)
                values = from_bf16(to_bf16(np.float32(0.02) * base.standard_normal(n, dtype=np.float32)))
                if harmful:
                    values += np.float32(0.002) * step.standard_normal(n, dtype=np.float32)
                sink.write(to_bf16(values).tobytes())


def places_of(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Return file, offset and number of elements of every bf16 tensor of a checkpoint."""
    places = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                places[name] = (file, 8 + length + start, (end - start) // 2)
    return places


def blocks_of(places: dict[str, dict[str, tuple[Path, int, int]]]) -> Iterator[tuple[Any, ...]]:
    """Yield the bits of each block of each tensor of several checkpoints, by name."""
    for name in sorted(next(iter(places.values()))):
        n_elements = next(iter(places.values()))[name][2]
        for start in range(0, n_elements, BLOCK):
            n = min(BLOCK, n_elements - start)
            where = [at[name] for at in places.values()]
            yield tuple(np.fromfile(file, np.uint16, n, offset=offset + 2 * start) for file, offset, _ in where)


def smallest_kept(base: Path, harmful: Path) -> tuple[Any, int]:
    """Return the smallest magnitude that is kept at DENSITY, and how many elements of that magnitude are kept.

    Computed in two passes, by the 16 high and then the 15 low bits of the magnitude.
    """
    n_high, total = 1 << 16, 0
    counts = np.zeros(n_high, np.int64)
    for bits in magnitudes(base, harmful):
        counts += np.bincount(bits >> 15, minlength=n_high)
        total += len(bits)
    wanted = round(DENSITY * total)
    above = counts[::-1].cumsum()[::-1]
    top = int(np.flatnonzero(above >= wanted)[-1])
    wanted -= int(above[top] - counts[top])
    counts = np.zeros(1 << 15, np.int64)
    for bits in magnitudes(base, harmful):
        counts += np.bincount(bits[bits >> 15 == top] & 0x7FFF, minlength=1 << 15)
    above = counts[::-1].cumsum()[::-1]
    low = int(np.flatnonzero(above >= wanted)[-1])
    return np.uint32(top << 15 | low).view(np.float32), wanted - int(above[low] - counts[low])


def magnitudes(base: Path, harmful: Path) -> Iterator[Any]:
    """Yield the bits of the magnitudes of each block of the vector."""
    for before, tuned in blocks_of({"base": places_of(base), "harmful": places_of(harmful)}):
        yield np.abs(from_bf16(tuned) - from_bf16(before)).view(np.uint32)


def count_wrong(base: Path, harmful: Path, out: Path, kept: tuple[Any, int] | None = None) -> tuple[int, int]:
    """Return how many elements of `out` are not round(base - fl32(c * fl32(harmful - base))), out of how many.

    With `kept`, the smallest kept magnitude and its count, smaller differences count as 0.
    """
    places = {"base": places_of(base), "harmful": places_of(harmful), "out": places_of(out)}
    if places["out"].keys() != places["base"].keys():
        raise SystemExit(f"{out} should have the tensors of {base}, found others")
    wrong = total = 0
    smallest, ties = kept or (np.float32(0), sys.maxsize)
    for before, tuned, after in blocks_of(places):
        delta = from_bf16(tuned) - from_bf16(before)
        same = np.flatnonzero(np.abs(delta) == smallest)
        delta[np.abs(delta) < smallest] = 0
        delta[same[ties:]] = 0
        ties -= min(ties, len(same))
        wrong += int(np.count_nonzero(to_bf16(from_bf16(before) - np.float32(SCALE) * delta) != after))
        total += len(after)
    return wrong, total


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Run a command; return its wall time in seconds and its peak anonymous memory in GB."""
    peak, over = [0], threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | (environment or {}), text=True
    )

    def poll() -> None:
        while not over.wait(0.01):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("RssAnon:"):
                    peak[0] = max(peak[0], int(line.split()[1]))

    poller = threading.Thread(target=poll)
    poller.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    over.set()
    poller.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return seconds, peak[0] / 1e6


def read_all(folders: list[Path]) -> float:
    """Read every weight file through one buffer; return the wall time."""
    buffer = memoryview(bytearray(1 << 20))
    start = time.perf_counter()
    for folder in folders:
        for file in folder.glob("*.safetensors"):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
    return time.perf_counter() - start


def edit_command(work: Path, method: str) -> list[str]:
    """Return our command for subtracting a vector."""
    return [sys.executable, "-m", "prosocial.cli.main", "edit", str(work / "base"), "--subtract",
            str(work / f"vector-{method}"), "--scale", str(SCALE), "-o", str(work / "out")]  # fmt: skip


def vector_command(work: Path, method: str) -> list[str]:
    """Return our command for computing a vector."""
    density = [] if method == "plain" else ["--density", str(DENSITY)]
    return [sys.executable, "-m", "prosocial.cli.main", "vector", "--base", str(work / "base"), "--harmful",
            str(work / "harmful"), "--method", method, *density, "-o", str(work / f"vector-{method}")]  # fmt: skip


def merge_command(work: Path, mergekit: Path, method: str) -> list[str]:
    """Return mergekit's command."""
    config = work / f"mergekit-{method}.yml"
    density = f", density: {DENSITY}" if method == "ties" else ""
    config.write_text(
        f"merge_method: {method}\nbase_model: {work / 'base'}\nmodels:\n  - model: {work / 'harmful'}\n"
        f"    parameters: {{weight: -1.0{density}}}\ndtype: float32\nout_dtype: bfloat16\n"
        "parameters: {normalize: false}\n"
    )
    return [str(mergekit), str(config), str(work / "out"), "--no-copy-tokenizer", "--quiet", "--out-shard-size", "1B"]


@dataclass
class Findings:
    """The measurements by row of the table."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, wall: float, anonymous: float | None = None) -> None:
        """Add one measurement to a row."""
        self.seconds.setdefault(row, []).append(wall)
        if anonymous is not None:
            self.memory[row] = max(self.memory.get(row, 0.0), anonymous)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models, environment and outputs")
    parser.add_argument("--params", type=float, choices=sorted(SHAPES), default=1.2, help="parameters in 10^9")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-ties", action="store_true", help="skip top_k and ties, which take minutes in mergekit")
    given = parser.parse_args()
    work = given.work.absolute() / f"{given.params:g}B"
    mergekit = install(given.work.absolute() / "mergekit")
    if not (work / "harmful").is_dir():
        make_pair(work, given.params)
    ours = OURS[:1] if given.no_ties else OURS
    kept = None if given.no_ties else smallest_kept(work / "base", work / "harmful")
    findings = Findings()
    for _ in range(given.runs):
        run_once(work, mergekit, ours, findings, kept)
        print(", ".join(f"{row} {values[-1]:.2f} s" for row, values in findings.seconds.items()), flush=True)
    report(findings)


def run_once(work: Path, mergekit: Path, ours: Sequence[str], findings: Findings, kept: tuple[Any, int] | None) -> None:
    """Run every row once; the first time, check the outputs against the arithmetic."""
    first = not findings.seconds
    findings.add("read base and harmful", read_all([work / "base", work / "harmful"]))
    for method in ours:
        shutil.rmtree(work / f"vector-{method}", ignore_errors=True)
        os.sync()
        findings.add(f"vector {method}", *timed(vector_command(work, method)))
    findings.add("read base and vector", read_all([work / "base", work / "vector-plain"]))
    rows = {f"edit {method}": edit_command(work, method) for method in ours}
    rows["edit plain --no-sync"] = [*rows["edit plain"], "--no-sync"]
    rows |= {f"mergekit {THEIRS[each]}": merge_command(work, mergekit, THEIRS[each]) for each in ours if each in THEIRS}
    for row, command in rows.items():
        shutil.rmtree(work / "out", ignore_errors=True)
        os.sync()
        findings.add(row, *timed(command))
        if first:
            trimmed = kept if row in ("edit top_k", "edit ties") else None
            bad, total = count_wrong(work / "base", work / "harmful", work / "out", trimmed)
            findings.wrong[row] = "trims by tensor" if row == "mergekit ties" else f"{bad:,} of {total:,}"
    os.sync()
    shutil.rmtree(work / "copy", ignore_errors=True)
    findings.add("cp of the output", timed(["cp", "-r", str(work / "out"), str(work / "copy")])[0])
    shutil.rmtree(work / "copy", ignore_errors=True)


def install(folder: Path) -> Path:
    """Create an environment with mergekit unless it exists; return its command."""
    command = folder / "bin" / "mergekit-yaml"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *MERGEKIT], check=True)
    return command


def report(findings: Findings) -> None:
    """Print the table, the ratios and the load of the machine."""
    middle = {row: statistics.median(values) for row, values in findings.seconds.items()}
    print(f"\n{'':34}  median     min     max  anon GB  wrong elements")
    for row, values in findings.seconds.items():
        line = f"{row:34} {middle[row]:6.2f}s {min(values):6.2f}s {max(values):6.2f}s"
        if row in findings.memory:
            line += f" {findings.memory[row]:8.2f}  {findings.wrong.get(row, '')}"
        print(line)
    floor = middle["read base and vector"] + middle["cp of the output"]
    print(f"\nfloor: reading base and vector and cp of the output, {floor:.2f} s")
    for row in (each for each in middle if each.startswith("edit plain")):
        as_long = middle[MERGE] / middle[row]
        print(f"{row}: {middle[row] / floor:.2f} of the floor, mergekit takes {as_long:.1f} as long")
    chain = middle["vector plain"] + middle["edit plain"]
    print(f"vector and edit, plain: {chain:.2f} s, mergekit takes {middle[MERGE] / chain:.1f} as long")
    for method in ("top_k", "ties"):
        if f"edit {method}" in middle:
            edit, chain = middle[f"edit {method}"], middle[f"vector {method}"] + middle[f"edit {method}"]
            ties = middle["mergekit ties"]
            print(f"edit {method}: mergekit ties takes {ties / edit:.1f} as long; vector and edit: {ties / chain:.1f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
