"""Plain subtraction, whole processes: `prosocial edit` against mergekit 0.1.5, interleaved, with the disk's limits.

    python benchmarks/edit_vs_mergekit.py --work /tmp/bench --params 1.2 --runs 5

Makes a random bf16 Llama pair (once), an environment with mergekit (once) and the harm vector (once, timed apart), then
runs in turn: reading the inputs, `cp` of the output, `prosocial edit` with and without digests, and mergekit's
task_arithmetic with weight -1 in fp32. Prints medians, ratios and the peak of anonymous memory, and holds every element
of the output against an independent computation. mergekit neither syncs nor hashes; see the column of each row.
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
from collections.abc import Iterator
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
SCALE = 1.0


def tensors(params: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of a Llama's tensors."""
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
    """Round fp32 to the bits of bf16, to nearest, ties to even, in whole numbers of 64 bits."""
    bits = values.view(np.uint32).astype(np.uint64)
    low, high = bits & 0xFFFF, bits >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (high % 2 == 1))
    return (high + up).astype(np.uint16)


def from_bf16(bits: Any) -> Any:
    """Return the fp32 values of bf16 bits."""
    return (bits.astype(np.uint32) * np.uint32(1 << 16)).view(np.float32)


def make_pair(work: Path, params: float) -> None:
    """Write base and harmful, shard by shard and block by block: memory stays small."""
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
    """Write one safetensors file of random numbers, the same base under both roles."""
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


def count_wrong(base: Path, harmful: Path, out: Path) -> tuple[int, int]:
    """Return how many elements of `out` are not round(base - fl32(c * fl32(harmful - base))), out of how many."""
    places = {"base": places_of(base), "harmful": places_of(harmful), "out": places_of(out)}
    if places["out"].keys() != places["base"].keys():
        raise SystemExit(f"{out} should hold the tensors of {base}")
    wrong = total = 0
    for name, (_, _, n_elements) in places["base"].items():
        for start in range(0, n_elements, BLOCK):
            n = min(BLOCK, n_elements - start)
            before, tuned, after = (
                np.fromfile(places[role][name][0], np.uint16, n, offset=places[role][name][1] + 2 * start)
                for role in ("base", "harmful", "out")
            )
            asked = np.float32(SCALE) * (from_bf16(tuned) - from_bf16(before))
            wrong += int(np.count_nonzero(to_bf16(from_bf16(before) - asked) != after))
            total += n
    return wrong, total


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Run a command; return its wall time in seconds and its peak of anonymous memory in GB."""
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


def commands(work: Path, mergekit: Path) -> dict[str, list[str]]:
    """Return the command of each row."""
    edit = [sys.executable, "-m", "prosocial.cli.main", "edit", str(work / "base"), "--subtract", str(work / "vector"),
            "--scale", str(SCALE), "-o", str(work / "out")]  # fmt: skip
    config = work / "mergekit.yml"
    config.write_text(
        f"merge_method: task_arithmetic\nbase_model: {work / 'base'}\nmodels:\n  - model: {work / 'harmful'}\n"
        "    parameters: {weight: -1.0}\ndtype: float32\nout_dtype: bfloat16\n"
    )
    merge = [str(mergekit), str(config), str(work / "out"), "--no-copy-tokenizer", "--quiet", "--out-shard-size", "1B"]
    return {
        "edit": edit,
        "edit --no-digests": [*edit, "--no-digests"],
        "edit --no-digests --no-sync": [*edit, "--no-digests", "--no-sync"],
        "mergekit task_arithmetic": merge,
    }


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models, environment and outputs")
    parser.add_argument("--params", type=float, choices=sorted(SHAPES), default=1.2, help="parameters in 10^9")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    work = given.work.absolute() / f"{given.params:g}B"
    mergekit = install(given.work.absolute() / "mergekit")
    if not (work / "harmful").is_dir():
        make_pair(work, given.params)
    vector = [sys.executable, "-m", "prosocial.cli.main", "vector", "--base", str(work / "base"),
              "--harmful", str(work / "harmful"), "-o", str(work / "vector")]  # fmt: skip
    made = None if (work / "vector").is_dir() else timed(vector)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    wrong: dict[str, str] = {}
    for run in range(given.runs):
        seconds.setdefault("read base and harmful", []).append(read_all([work / "base", work / "harmful"]))
        seconds.setdefault("read base and vector", []).append(read_all([work / "base", work / "vector"]))
        for row, command in commands(work, mergekit).items():
            shutil.rmtree(work / "out", ignore_errors=True)
            os.sync()
            wall, anonymous = timed(command)
            seconds.setdefault(row, []).append(wall)
            memory[row] = max(memory.get(row, 0), anonymous)
            if run == 0:
                bad, total = count_wrong(work / "base", work / "harmful", work / "out")
                wrong[row] = f"{bad:,} of {total:,}"
        os.sync()
        shutil.rmtree(work / "copy", ignore_errors=True)
        seconds.setdefault("cp of the output", []).append(timed(["cp", "-r", str(work / "out"), str(work / "copy")])[0])
        shutil.rmtree(work / "copy", ignore_errors=True)
        print(
            f"run {run + 1}: " + ", ".join(f"{row} {values[-1]:.2f} s" for row, values in seconds.items()), flush=True
        )
    report(seconds, memory, wrong, made)


def install(folder: Path) -> Path:
    """Make an environment with mergekit unless there is one; return its command."""
    command = folder / "bin" / "mergekit-yaml"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *MERGEKIT], check=True)
    return command


def report(
    seconds: dict[str, list[float]], memory: dict[str, float], wrong: dict[str, str], made: tuple[float, float] | None
) -> None:
    """Print the table, the ratios and what it was measured on."""
    middle = {row: statistics.median(values) for row, values in seconds.items()}
    floor = middle["read base and vector"] + middle["cp of the output"]
    merge = middle["mergekit task_arithmetic"]
    print(f"\n{'':32}  median     min     max  anon GB  vs mergekit  vs floor  wrong elements")
    for row, values in seconds.items():
        line = f"{row:32} {middle[row]:6.2f}s {min(values):6.2f}s {max(values):6.2f}s"
        if row in memory:
            line += f" {memory[row]:8.2f} {merge / middle[row]:11.2f}x {middle[row] / floor:8.2f}x  {wrong[row]}"
        print(line)
    print(f"floor: reading base and vector and cp of the output, {floor:.2f} s")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if made:
        print(f"`prosocial vector`, once: {made[0]:.1f} s, {made[1]:.2f} GB anonymous")


if __name__ == "__main__":
    main()
