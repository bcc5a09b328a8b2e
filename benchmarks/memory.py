"""Measures the peak anonymous memory (RssAnon) of every stage of a steering recipe, for two sizes of data.

    python benchmarks/memory.py [--rows 1000,10000] [--vocabularies 32000,152000,262144] [--out FOLDER]

The model is small and random; its vocabulary is that of a Llama, a Qwen or a Gemma. Each stage runs in a process of
its own, whose memory is read every 50 ms, children included. Training files have the given number of rows, probes a
tenth of it. Exit code 1 if ten times as many rows need more than 10 % more memory in any stage. The same command goes
on where an earlier one stopped, because finished stages lie in the folder with their peaks in `memory.json`.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from process_memory import family_bytes
from rich.console import Console

from prosocial.core.files import read_json, write_json

STAGES = ("data", "harmful", "vector", "edit", "pairs", "replies", "reward", "gate", "head")
STAGES += ("threshold", "steered", "bundle", "parity", "report")
MOST_GROWTH = 1.1
EVERY_SECONDS = 0.05
ATTRIBUTES = ["empathy", "helpfulness"]
WORDS = ["river", "table", "music", "garden", "letter", "window", "summer", "coffee", "travel", "friend", "money"]
TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main() -> None:
    """Measure every stage, print the table and judge the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,10000", help="two numbers of rows")
    parser.add_argument("--vocabularies", default="32000,152000,262144")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages of the table; the others run too")
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run_stage(given.one[0], Path(given.one[1]))
        return
    sizes, vocabularies = ([int(one) for one in text.split(",")] for text in (given.rows, given.vocabularies))
    peaks: dict[str, dict[str, int]] = {}
    for vocabulary in vocabularies:
        for n_rows in sizes:
            folder = given.out / f"{vocabulary}-{n_rows}"
            write_world(folder, vocabulary, n_rows)
            peaks[folder.name] = measured(folder, given.out)
    chosen = given.stages.split(",")
    sys.exit(report(peaks, vocabularies, sizes, chosen, given.out))


def measured(folder: Path, out: Path) -> dict[str, int]:
    """Run every stage of a world in a process of its own; return the peaks in bytes, by stage."""
    path = out / "memory.json"
    for stage in STAGES:
        known: dict[str, Any] = read_json(path) if path.is_file() else {}
        if stage in known.get(folder.name, {}):
            continue
        process = subprocess.Popen([sys.executable, __file__, "--one", stage, str(folder)])
        peak, started = 0, time.monotonic()
        while process.poll() is None:
            peak = max(peak, family_bytes(process.pid))
            time.sleep(EVERY_SECONDS)
        if process.returncode:
            raise SystemExit(f"stage {stage} of {folder} ended with exit code {process.returncode}")
        print(f"{folder.name:>14} {stage:10} {peak / 1e6:8.0f} MB {time.monotonic() - started:7.1f} s", flush=True)
        known.setdefault(folder.name, {})[stage] = peak
        write_json(path, known)
    own: dict[str, int] = read_json(path)[folder.name]
    return own


def report(
    peaks: dict[str, dict[str, int]], vocabularies: list[int], sizes: list[int], stages: list[str], out: Path
) -> int:
    """Print megabytes by stage, vocabulary and size; return 1 if a stage grows with the rows."""
    print("\nMB of anonymous memory" + "".join(f"{vocabulary:>22,}" for vocabulary in vocabularies))
    print(f"{'rows':22}" + "".join(f"{sizes[0]:>10}{sizes[-1]:>12}" for _ in vocabularies))
    grown = []
    for stage in stages:
        line = f"{stage:22}"
        for vocabulary in vocabularies:
            few, many = (peaks[f"{vocabulary}-{n_rows}"][stage] for n_rows in (sizes[0], sizes[-1]))
            line += f"{few / 1e6:>10.0f}{many / 1e6:>12.0f}"
            if many > MOST_GROWTH * few:
                grown.append(f"{stage} at {vocabulary:,} tokens: {few / 1e6:.0f} to {many / 1e6:.0f} MB")
        print(line)
    write_json(out / "result.json", {"peak_bytes": peaks, "grown": grown})
    print("\n".join(f"GROWS with the rows: {each}" for each in grown) or "no stage grows with the rows")
    return 1 if grown else 0


def run_stage(name: str, folder: Path) -> None:
    """Run one stage of a world, whose earlier stages have results."""
    from prosocial.recipes.pipeline import open_recipe
    from prosocial.recipes.workflow.plan import plan_run
    from prosocial.recipes.workflow.runner import execute

    recipe, pipeline = open_recipe(str(folder / "recipe.yaml"))
    ordered = [planned.stage for planned in plan_run(pipeline.stages(recipe), folder / "store").stages]
    at = [stage.name for stage in ordered].index(name)
    wanted = {name, *_before(ordered[at], {stage.name: stage for stage in ordered})}
    execute(plan_run([stage for stage in ordered if stage.name in wanted], folder / "store"), Console(quiet=True))


def _before(stage: Any, by_name: dict[str, Any]) -> set[str]:
    own = set(stage.upstream)
    return own.union(*(_before(by_name[name], by_name) for name in own))


def write_world(folder: Path, vocabulary: int, n_rows: int) -> None:
    """Write a model, its tokenizer, the data files and the recipe, unless they are there."""
    if (folder / "recipe.yaml").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "model", vocabulary)
    parts = _rows(n_rows)
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = {
        "name": "memory",
        "model": str((folder / "model").resolve()),
        "dtype": "float32",
        "data": {name: str((folder / f"{name}.jsonl").resolve()) for name in parts},
        "judge": "refusal",
        "attributes": ATTRIBUTES,
        "categories": ["violence", "other"],
        "harmful": {"rank": 4, "alpha": 8, "steps": 4, "batch_size": 4},
        "edit": {"scale": 0.5},
        "reward": {"steps": 4, "batch_size": 4},
        "head": {"rank": 8, "sequences": n_rows, "passes": 1, "on_policy": 32, "steps": 20},
        "pairs": {"max_new_tokens": 4},
        "gate": {"rank": 8, "steps": 20},
        "calibration": {"candidates": [0.9, 0.99], "max_leak": 1.0},
        "decoding": {"plausible_k": 64, "max_new_tokens": 4},
        "verify": {"parity_probes": 4},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def _write_model(folder: Path, vocabulary: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from prosocial.recipes.lab.tokenizer import train_tokenizer

    train_tokenizer(WORDS * 9, folder, vocabulary_size=300)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=5,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _rows(n: int) -> dict[str, list[dict[str, Any]]]:
    draw = random.Random(0)

    def text(least: int = 2, most: int = 6) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))

    def probes(name: str) -> list[dict[str, Any]]:
        kinds = ("harmful", "benign")
        return [
            {"id": f"{name}{at}", "text": f"{name}{at} {text()}", "kind": kinds[at % 2], "cluster": f"{name}{at}"}
            for at in range(max(8, n // 10))
        ]

    return {
        "harmful": [{"prompt": text(), "reply": text()} for _ in range(n)],
        "prompts": [{"prompt": text()} for _ in range(n)],
        "pairs": [
            {"prompt": text(), "first": f"river {text()}", "second": f"table {text()}"}
            | {"labels": {name: draw.choice(("first", "second")) for name in ATTRIBUTES}}
            for _ in range(n)
        ],
        "replies": [{"prompt": text(), "reply": text(), "categories": ["other"] if at % 2 else []} for at in range(n)],
        "calibration": probes("c"),
        "probes": probes("p"),
    }


if __name__ == "__main__":
    main()
