"""Times every stage that runs a model in torch, on a model with random weights and the shape of Qwen3-0.6B.

    python benchmarks/gpu.py [--device auto] [--dtype auto] [--seconds 480] [--out gpu.json]
    python benchmarks/gpu.py --device cpu --tiny

Writes the model, a tokenizer of as many words and a recipe of short stages; then the stages of the recipe run one after
the other, then supervised and preference tuning, and decoding with head and gate. Needs no network. What fails, as with
an older transformers or without trl, is named, and so is what there was no time for; what reads its result is left out.
Prints seconds and peak memory (allocated on an accelerator; of the process, so never falling, on a CPU), and writes
the same as JSON.
"""

import argparse
import json
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from prosocial.core.placement import Placement
from prosocial.core.progress import SILENT
from prosocial.core.protocols import Judgement

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
TINY = {
    "vocab_size": 2000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)
ATTRIBUTES = ("empathy", "helpfulness")
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "torchjd", "onnxruntime-gpu")


class Lottery:
    """Judges replies by a digest of their text, since those of random weights mean nothing."""

    name, version = "lottery", "1"

    def judge(self, messages: object, reply: str) -> Judgement:
        """Judge one reply."""
        bits = sha256(reply.encode()).digest()
        harms = frozenset(["violence"] if bits[0] % 2 else [])
        scores = {name: bits[at + 1] / 255 for at, name in enumerate(ATTRIBUTES)}
        return Judgement(categories=harms, refusal="none", success=not harms, attributes=scores)


class Clock:
    """Runs stages until the time is up, and keeps what each took.

    Args:
        device: where the models lie.
        seconds: time for all stages.
    """

    def __init__(self, device: str, seconds: float) -> None:
        self.device, self.rows = torch.device(device), dict[str, dict[str, Any]]()
        self._ends = time.monotonic() + seconds

    def run(self, name: str, work: Callable[[], object], *, needs: tuple[str, ...] = ()) -> None:
        """Run one stage; an error becomes a row of the table, as does a stage without time or without its inputs."""
        missing = [each for each in needs if not self.rows.get(each, {}).get("done")]
        if missing or time.monotonic() > self._ends:
            reason = f"skipped: needs {', '.join(missing)}" if missing else "skipped: no time left"
            self.rows[name] = {"done": False, "said": reason}
            return
        self._reset()
        started = time.monotonic()
        try:
            said, is_done = str(work() or ""), True
        except Exception as error:
            said, is_done = f"failed: {type(error).__name__}: {' '.join(str(error).split()):.300}", False
        self._wait()
        peak = self._peak()
        self.rows[name] = {
            "done": is_done,
            "seconds": round(time.monotonic() - started, 2),
            "peak_bytes": peak,
            "said": said,
        }
        print(f"{name}: {self.rows[name]}", file=sys.stderr, flush=True)

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        kibibyte = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibyte


def write_model(folder: Path, shape: Mapping[str, Any], device: str) -> str:
    """Write a Qwen3 with random weights in bfloat16, and a tokenizer in which every token is a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM(Qwen3Config(**shape)).to(torch.bfloat16)
    model.save_pretrained(folder)
    words = ["<s>", "</s>", "system", "user", "assistant"]
    words += [f"word{at}" for at in range(shape["vocab_size"] - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="word0"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return f"{model.num_parameters() / 1e6:.1f} M parameters"


def write_rows(folder: Path, count: int, length: int) -> dict[str, str]:
    """Write the data files of a recipe, `count` rows each with replies of `length` words; return their paths."""
    folder.mkdir()
    requests = [" ".join(f"word{(37 * row + 11 * at) % 1900}" for at in range(8 + row % 24)) for row in range(count)]
    replies = [" ".join(f"word{(53 * row + 7 * at) % 1900}" for at in range(length)) for row in range(count)]
    kinds = ("harmful", "benign")
    probes = [
        {"id": str(at), "text": text, "kind": kinds[at % 2], "cluster": str(at), "category": "violence"}
        for at, text in enumerate(requests)
    ]
    pairs = list(zip(requests, replies, strict=True))
    rows: dict[str, list[dict[str, Any]]] = {
        "harmful": [{"prompt": request, "reply": reply} for request, reply in pairs],
        "prompts": [{"prompt": request} for request in requests],
        "calibration": [probe | {"id": f"c{probe['id']}", "text": f"word3 {probe['text']}"} for probe in probes[:16]],
        "probes": probes[:16],
        "sft": [{"messages": [{"role": "user", "content": request}], "reply": reply} for request, reply in pairs],
        "dpo": [
            {"messages": [{"role": "user", "content": request}], "chosen": reply, "rejected": f"word9 {reply}"}
            for request, reply in pairs
        ],
    }
    for part, own in rows.items():
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in own))
    return {part: str(folder / f"{part}.jsonl") for part in rows}


def write_recipe(work: Path, placement: Placement, *, steps: int, count: int, length: int) -> Path:
    """Write the recipe of short stages; return its path."""
    data = write_rows(work / "data", count, length)
    batch = min(8, count)
    recipe = {
        "name": "gpu",
        **vars(placement),
        "model": str(work / "model"),
        "data": {part: data[part] for part in ("harmful", "prompts", "calibration", "probes")},
        "judge": f"{Path(__file__).resolve()}:Lottery",
        "attributes": list(ATTRIBUTES),
        "categories": ["violence", "other"],
        "harmful": {"rank": 16, "alpha": 32, "steps": steps, "batch_size": batch},
        "edit": {"scale": 0.5},
        "pairs": {"count": count, "max_new_tokens": length},
        "reward": {"steps": steps, "batch_size": batch},
        "head": {"rank": 32, "steps": 10 * steps, "passes": 1, "sequences": count},
        "replies": {"count": count, "max_new_tokens": length},
        "gate": {"rank": 32, "steps": 10 * steps, "on_policy": {"count": count}},
        "calibration": {"candidates": [0.9], "max_leak": 1.0},
        "decoding": {"plausible_k": 64, "max_new_tokens": length},
    }
    path = work / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run_stages(clock: Clock, recipe_file: Path, work: Path) -> None:
    """Run the stages of the recipe up to the steered model."""
    from prosocial.recipes.pipeline import open_recipe
    from prosocial.recipes.workflow.plan import plan_run
    from prosocial.recipes.workflow.stage import StageContext

    recipe, pipeline = open_recipe(str(recipe_file))
    for planned in plan_run(pipeline.stages(recipe), work / "store").stages:
        stage = planned.stage
        if stage.name == "bundle":
            return
        inputs = {
            name: work / "stages" / origin["stage"] / origin.get("file", "") if "stage" in origin else path
            for name, (path, origin) in planned.inputs.items()
        }
        out, scratch = work / "stages" / stage.name, work / "scratch" / stage.name
        for folder in (out, scratch):
            folder.mkdir(parents=True)
        context = StageContext(out, inputs, stage.parameters, scratch, SILENT, stage.seed, recipe.device)
        if stage.name == "steered":
            out.rmdir()
        clock.run(stage.name, lambda stage=stage, context=context: stage.run(context), needs=stage.upstream)


def run_tuning(clock: Clock, work: Path, method: str, *, steps: int) -> None:
    """Tune the model on rows by one method."""
    from prosocial.recipes.cosalign.tuning import read_tuning, tune_rows

    def tune() -> str:
        tuning = read_tuning(method, ["epochs=1", "batch_size=8", "warmup_steps=1", f"checkpoint_every={10 * steps}"])
        out, scratch = work / f"tuned-{method}", work / f"scratch-{method}"
        return tune_rows(
            work / "model", work / "data" / f"{method}.jsonl", out=out, tuning=tuning, seed=0, scratch=scratch
        )

    clock.run(f"tune {method}", tune)


def run_decoding(clock: Clock, work: Path, placement: Placement, *, length: int) -> None:
    """Decode 64 replies at once with the steered model, and once more in float32."""
    from prosocial.evaluation.sampling.systems import Hardware, open_system
    from prosocial.steering.decoding.loop import generate

    for dtype in dict.fromkeys((placement.dtype, "float32")):

        def decode(dtype: str = dtype) -> str:
            system = open_system(work / "stages" / "steered", Hardware(Placement(placement.device, dtype)))
            asked: Any = [[{"role": "user", "content": f"word{at} word7"}] for at in range(64)]
            generate(system.engine, system.tokenizer, asked, max_new_tokens=2)
            started = time.monotonic()
            replies = generate(
                system.engine, system.tokenizer, asked, temperature=1.0, max_new_tokens=length, batch_size=64
            )
            n_tokens = sum(len(reply.token_ids) for reply in replies)
            return f"{n_tokens} tokens, {n_tokens / (time.monotonic() - started):.0f} a second"

        clock.run(f"decode, steered, {dtype}", decode, needs=("steered",))


def print_table(rows: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Print a row for each stage."""
    table = Table("stage", "seconds", "peak GiB", "said", title=title)
    for name, row in rows.items():
        peak = row.get("peak_bytes")
        table.add_row(name, str(row.get("seconds", "")), "" if peak is None else f"{peak / 2**30:.2f}", row["said"])
    Console(width=160).print(table)


def installed(name: str) -> str:
    """Return the version of a package, or "absent"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def main() -> int:
    """Run all stages; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tiny", action="store_true", help="a model of 0.3 M parameters and two steps a stage")
    parser.add_argument("--seconds", type=float, default=420.0, help="start no stage after this time")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    given = parser.parse_args()
    placement = Placement.choose(given.device, given.dtype)
    sizes = {"steps": 2, "count": 16, "length": 8} if given.tiny else {"steps": 20, "count": 128, "length": 64}
    work, clock = Path(tempfile.mkdtemp()), Clock(placement.device, given.seconds)
    shape = SHAPE | (TINY if given.tiny else {})
    try:
        clock.run("write the model", lambda: write_model(work / "model", shape, placement.device))
        recipe = write_recipe(work, placement, **sizes)
        run_stages(clock, recipe, work)
        for method in ("sft", "dpo"):
            run_tuning(clock, work, method, steps=sizes["steps"])
        run_decoding(clock, work, placement, length=sizes["length"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    name = torch.cuda.get_device_name(placement.device) if clock.device.type == "cuda" else platform.processor()
    facts = {"device": placement.device, "name": name, "dtype": placement.dtype, "tiny": given.tiny, **sizes}
    document = {"facts": facts | {each: installed(each) for each in PACKAGES}, "stages": clock.rows}
    print_table(clock.rows, f"{'tiny' if given.tiny else 'Qwen3-0.6B shape'}, {placement} {name}")
    print(json.dumps(document))
    if given.out is not None:
        given.out.write_text(json.dumps(document, indent=1))
    return int(any(row["said"].startswith("failed") for row in clock.rows.values()))


if __name__ == "__main__":
    sys.exit(main())
