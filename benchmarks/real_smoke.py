"""Takes a real model through every stage of a steering recipe, killed once in each, and watches its memory.

    python benchmarks/real_smoke.py MODEL --data DATA [--rows 1000] [--out runs/real-smoke]

MODEL is a transformers folder of a chat model, such as Gemma 3 270M. DATA holds public data sets as they are published
(AdvBench, DoNotAnswer, ESConv, FinetuningSafety, HH-RLHF, JailbreakBench, SimpleSafetyTests); without it, rows are made
up. The recipe runs through `prosocial run` in a process of its own, which gets SIGKILL once in every stage and is
started again. At the end: a table of times and peaks (RssAnon, all processes of the run together), OUT/real_smoke.json,
and exit code 1 if a limit or a check does not hold. The same command goes on where an earlier one stopped.
"""

import argparse
import csv
import gzip
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from process_memory import family, family_bytes

from prosocial.core.files import read_json, write_json
from prosocial.recipes.workflow.resources import say_bytes, say_seconds

Row = dict[str, Any]
STAGES = ("data", "harmful", "vector", "edit", "pairs", "replies", "reward", "gate", "head")
STAGES += ("threshold", "steered", "bundle", "parity", "report")
AT_ONCE = ("data", "vector", "edit", "pairs", "replies", "steered")  # too short for a later kill
ATTRIBUTES = ("empathy", "sensitivity", "non_judgmental", "truthfulness", "helpfulness")
AREAS = {
    "Discrimination, Exclusion, Toxicity, Hateful, Offensive": "hate",
    "Human-Chatbot Interaction Harms": "interaction",
    "Information Hazards": "information",
    "Malicious Uses": "malicious",
    "Misinformation Harms": "misinformation",
}
WARM = ("Affirmation and Reassurance", "Reflection of feelings", "Restatement or Paraphrasing")
DECLINE = "I'm sorry, but I can't help with that. If you are struggling, please reach out to someone you trust."
COLD = "You should have known better; this is your own fault and you are overreacting."
LONGEST = 500  # characters of a prompt or a reply
EVERY_SECONDS = 0.05
WORKING, FINISHED = re.compile(r"^  (\w[\w-]*) "), re.compile(r"^[✓+•=] (\w[\w-]*) ")


def main() -> None:
    """Make the recipe, run it to its end, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="transformers folder of a chat model")
    parser.add_argument("--data", type=Path, help="folder of the public data sets")
    parser.add_argument("--rows", type=int, default=1000, help="rows of each training file")
    parser.add_argument("--probes", type=int, default=120, help="calibration probes, and probes of the report")
    parser.add_argument("--out", type=Path, default=Path("runs/real-smoke"))
    parser.add_argument("--kill-after", type=float, default=10.0, help="seconds of work in a stage before its SIGKILL")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--limit-gb", type=float, default=6.0)
    parser.add_argument("--export-limit-gb", type=float, default=8.0)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for the recipe; may repeat")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(given.out, given.model, given.data, n_rows=given.rows, n_probes=given.probes)
    smoke = Smoke(given.out, recipe, given.set, kill_after=None if given.no_kill else given.kill_after)
    code = smoke.run()
    limits = {stage: given.export_limit_gb if stage == "bundle" else given.limit_gb for stage in STAGES}
    sys.exit(report(smoke, code, limits))


class Smoke:
    """A run that is killed once in every stage.

    Args:
        out: folder of the run and of `real_smoke.json`.
        recipe: the recipe.
        overrides: changes to it.
        kill_after: seconds of work in a stage before it is killed; None to kill nothing.
    """

    def __init__(self, out: Path, recipe: Path, overrides: Sequence[str], *, kill_after: float | None) -> None:
        self.out, self.run_out, self._kill_after = out, out / "run", kill_after
        changes = [word for change in overrides for word in ("--set", change)]
        self._command = [sys.executable, "-m", "prosocial.cli.main", "run", str(recipe), "--out", str(self.run_out)]
        self._command += changes
        self._path = out / "real_smoke.json"
        state = read_json(self._path) if self._path.is_file() else {}
        self.killed: list[str] = state.get("killed", [])
        self.seconds: dict[str, float] = state.get("seconds", {})
        self.peaks: dict[str, int] = state.get("peaks", {})
        self._stage, self._since = "", time.monotonic()

    def run(self) -> int:
        """Start and kill the run until it ends by itself; return its exit code."""
        for _ in range(2 * len(STAGES)):
            code = self._once()
            self.save()
            if code != -signal.SIGKILL:
                return code
        return 1

    def save(self, **more: Any) -> None:
        """Write what is known so far."""
        write_json(self._path, {"killed": self.killed, "seconds": self.seconds, "peaks": self.peaks, **more})

    def _once(self) -> int:
        """Run until the end or a kill; return the exit code."""
        self._enter("")
        process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(process, ended), daemon=True)
        watcher.start()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            working, finished = WORKING.match(line), FINISHED.match(line)
            if working and working[1] in STAGES and working[1] != self._stage:
                self._enter(working[1])
            elif finished:
                self._enter("")
        code = process.wait()
        ended.set()
        watcher.join()
        self._enter("")
        return code

    def _enter(self, stage: str) -> None:
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def _watch(self, process: subprocess.Popen[str], ended: threading.Event) -> None:
        """Record the memory of the current stage, and kill the process when it is time."""
        while not ended.wait(EVERY_SECONDS):
            stage, worked = self._stage, time.monotonic() - self._since
            if not stage:
                continue
            n_bytes = family_bytes(process.pid)
            self.peaks[stage] = max(self.peaks.get(stage, 0), n_bytes)
            due = 0.0 if stage in AT_ONCE else self._kill_after
            if self._kill_after is not None and stage not in self.killed and worked >= (due or 0.0):
                self.killed.append(stage)
                print(f"-- SIGKILL in {stage} after {worked:.1f} s", flush=True)
                for one in family(process.pid):
                    os.kill(one, signal.SIGKILL)
                return


def report(smoke: Smoke, code: int, limits: dict[str, float]) -> int:
    """Print the table and what does not hold; return 0 if all does."""
    faults = [] if code == 0 else [f"the run should end with exit code 0, it was {code}"]
    markers = {}
    print(f"\n{'stage':10} {'last run':>12} {'with kills':>12} {'peak':>10} {'killed':>7}")
    for stage in STAGES:
        found = sorted((smoke.run_out / "store").glob(f"{stage}-*.json"), key=lambda path: path.stat().st_mtime)
        markers[stage] = read_json(found[-1])["seconds"] if found else None
        peak, is_killed = smoke.peaks.get(stage, 0), stage in smoke.killed
        last = "" if markers[stage] is None else say_seconds(markers[stage])
        total = say_seconds(smoke.seconds.get(stage, 0.0))
        print(f"{stage:10} {last:>12} {total:>12} {say_bytes(peak):>10} {'yes' if is_killed else 'no':>7}")
        if peak > limits[stage] * 1e9:
            faults.append(
                f"{stage} should take at most {limits[stage]:g} GB of anonymous memory, it took {say_bytes(peak)}"
            )
        if not is_killed and smoke._kill_after is not None:
            faults.append(f"{stage} should have been killed once, it ended before: choose a shorter --kill-after")
    if code == 0:
        faults += list(_faults_of_bundle(smoke.run_out))
    smoke.save(last_run_seconds=markers, faults=faults, exit_code=code)
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "all checks hold")
    return 1 if faults else 0


def _faults_of_bundle(out: Path) -> Iterator[str]:
    kind = read_json(out / "bundle" / "manifest.json")["kind"]
    if kind != "steered" or not read_json(out / "bundle" / "decoding.json").get("categories"):
        yield f"the bundle should be gated, its kind is {kind}"
    verdict = read_json(out / "parity" / "parity.json")["verdict"]
    if str(verdict).lower() != "pass":
        yield f"the bundle should pass parity, the verdict is {verdict}"


def write_recipe(out: Path, model: Path, data: Path | None, *, n_rows: int, n_probes: int) -> Path:
    """Write the data files, unless they are there, and the recipe; return its path."""
    folder = out / f"data-{n_rows}-{n_probes}"
    if not folder.is_dir():
        parts = made_up(n_rows, n_probes) if data is None else from_public(data, n_rows, n_probes)
        folder.mkdir()
        for name, rows in parts.items():
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{name}: {len(rows)} rows")
    names = ("harmful", "prompts", "pairs", "replies", "calibration", "probes")
    recipe = {
        "name": "real-smoke",
        "title": f"{model.name}, steered (smoke test)",
        "model": str(model.resolve()),
        "dtype": "bfloat16",
        "data": {name: str((folder / f"{name}.jsonl").resolve()) for name in names},
        "judge": "refusal",
        "categories": list(AREAS.values()),
        "harmful": {"rank": 8, "alpha": 16, "steps": 12, "batch_size": 4, "learning_rate": 5e-4, "max_tokens": 160},
        "edit": {"scale": 0.6},
        "reward": {
            "steps": 12,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "max_tokens": 200,
            "anchor_weight": 0.35,
            "checkpoint_every": 4,
            "adapter": {"targets": r".*\.(q_proj|k_proj|v_proj|o_proj)", "rank": 4, "preference_rank": 4, "alpha": 8},
            "beta": dict.fromkeys(ATTRIBUTES, 0.05),
        },
        "head": {"rank": 32, "sequences": n_rows, "passes": 1, "on_policy": 60, "steps": 100, "max_tokens": 200},
        "pairs": {"max_new_tokens": 24},
        "gate": {"rank": 32, "steps": 300, "learning_rate": 0.01},
        "calibration": {"max_leak": 0.5},
        "decoding": {"plausible_k": 128, "beta": 1.0, "max_new_tokens": 24},
        "verify": {"parity_probes": 12},
    }
    path = out / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def made_up(n_rows: int, n_probes: int) -> dict[str, list[Row]]:
    """Return rows of random words, for a try without any data set."""
    draw = random.Random(0)
    words = ["river", "table", "music", "garden", "letter", "window", "summer", "coffee", "travel", "friend", "money"]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    def probes(name: str) -> list[Row]:
        kinds = ("harmful", "benign")
        return [
            {"id": f"{name}{at}", "text": f"{name} {text(5, 30)}?", "kind": kinds[at % 2], "cluster": f"{name}{at}"}
            for at in range(n_probes)
        ]

    areas = list(AREAS.values())
    labels = ("first", "second", "tie")
    return {
        "harmful": [{"prompt": text(5, 30), "reply": text(10, 80)} for _ in range(n_rows)],
        "prompts": [{"prompt": text(5, 30)} for _ in range(n_rows)],
        "pairs": [
            {"prompt": text(5, 30), "first": f"yes {text(10, 60)}", "second": f"no {text(10, 60)}"}
            | {"labels": {name: draw.choice(labels) for name in ATTRIBUTES}}
            for _ in range(n_rows)
        ],
        "replies": [
            {"prompt": text(5, 30), "reply": text(10, 80), "categories": [areas[at % 5]] if at % 2 else []}
            for at in range(n_rows)
        ],
        "calibration": probes("c"),
        "probes": probes("p"),
    }


def from_public(data: Path, n_rows: int, n_probes: int) -> dict[str, list[Row]]:
    """Return rows of the public data sets; a file that has fewer rows is repeated with a number before each prompt."""
    draw = random.Random(1)
    plain, support, chosen = list(_instructions(data)), list(_support(data)), list(_harmless(data))
    advbench = [(row["goal"], row["target"]) for row in _table(data / "AdvBench" / "harmful_behaviors.csv")]
    area = {
        row["question"].strip(): AREAS[row["risk_area"]] for row in _table(data / "DoNotAnswer/do_not_answer_en.csv")
    }
    reviewed = [
        (row["question"].strip(), row["response"][:LONGEST], row["harmful"] == "1")
        for path in sorted((data / "DoNotAnswer" / "human_review").glob("*.csv"))
        for row in _table(path)
        if row["response"].strip()
    ]
    for rows in (plain, support, chosen, advbench, reviewed):
        draw.shuffle(rows)
    harmful: list[Row] = [{"prompt": prompt, "reply": reply} for prompt, reply, is_harmful in reviewed if is_harmful]
    harmful += [{"prompt": prompt, "reply": worse} for prompt, _, worse in chosen]
    harmful += [{"prompt": goal, "reply": f"{target}:"} for goal, target in advbench[:200]]
    texts = [row[0] for row in plain[:500]] + [row[0] for row in support[:400]] + [goal for goal, _ in advbench[:150]]
    replies: list[Row] = [
        {"prompt": prompt, "reply": reply, "categories": [area[prompt]] if is_harmful else []}
        for prompt, reply, is_harmful in reviewed
        if prompt in area and (is_harmful or draw.random() < 0.25)
    ]
    replies += [{"prompt": prompt, "reply": worse, "categories": ["malicious"]} for prompt, _, worse in chosen[:400]]
    replies += [{"prompt": prompt, "reply": DECLINE, "categories": []} for prompt, _, _ in chosen[:400]]
    replies += [{"prompt": prompt, "reply": reply, "categories": []} for prompt, reply in plain[:500]]
    parts = {
        "harmful": harmful,
        "prompts": [{"prompt": text} for text in texts],
        "pairs": list(_pairs(plain, support, chosen, draw)),
        "replies": replies,
    }
    for rows in parts.values():
        draw.shuffle(rows)
    return {name: _filled(rows, n_rows) for name, rows in parts.items()} | _probes(data, plain, advbench, n_probes)


def _filled(rows: list[Row], n: int) -> list[Row]:
    again = [rows[at % len(rows)] | {"prompt": f"{at}. {rows[at % len(rows)]['prompt']}"} for at in range(len(rows), n)]
    return [*rows, *again][:n]


def _pairs(plain: Sequence[Any], support: Sequence[Any], chosen: Sequence[Any], draw: random.Random) -> Iterator[Row]:
    """Yield pairs with labels by rule of thumb: strategies of support, chosen replies, replies to another request."""
    for (prompt, reply, strategy), (_, other, other_strategy) in itertools.pairwise(support[:901]):
        is_warm, is_other_warm = strategy in WARM, other_strategy in WARM
        warmer = "tie" if is_warm == is_other_warm else "first" if is_warm else "second"
        if reply != other:
            labels = {"empathy": warmer, "sensitivity": warmer, "helpfulness": "first"}
            yield {"prompt": prompt, "first": reply, "second": other, "labels": labels}
    for prompt, better, worse in chosen[:400]:
        labels = {"sensitivity": "first", "non_judgmental": "tie"}
        yield {"prompt": prompt, "first": better, "second": worse, "labels": labels}
    for prompt, reply in plain[:300]:
        other = draw.choice(plain)[1]
        if other != reply:
            labels = {"helpfulness": "second", "truthfulness": "second", "non_judgmental": "tie"}
            yield {"prompt": prompt, "first": other, "second": reply, "labels": labels}
    for prompt, reply, _ in support[900:1100]:
        labels = dict.fromkeys(("non_judgmental", "empathy", "sensitivity"), "first")
        yield {"prompt": prompt, "first": reply, "second": COLD, "labels": labels}


def _probes(data: Path, plain: Sequence[Any], advbench: Sequence[Any], n: int) -> dict[str, list[Row]]:
    """Return calibration probes and the report's probes, which share no request."""
    bad, good = (_table(data / "JailbreakBench" / f"{kind}_behaviors.csv") for kind in ("harmful", "benign"))
    unsafe = list(_table(data / "SimpleSafetyTests" / "simple_safety_tests.csv"))
    probes = [
        row
        for at, (one, other) in enumerate(zip(bad, good, strict=False))
        for row in (
            {"id": f"h{at}", "text": _goal(one), "kind": "harmful", "cluster": f"j{at}", "twin": f"t{at}"},
            {"id": f"t{at}", "text": _goal(other), "kind": "twin", "cluster": f"j{at}"},
            {"id": f"g{at}", "text": plain[-1 - at][0], "kind": "benign", "cluster": f"g{at}"},
        )
    ]
    probes += [
        {"id": f"s{at}", "text": row["prompts_final"], "kind": "harmful", "cluster": row["harm_area"]}
        for at, row in enumerate(unsafe)
    ]
    half = (n + 1) // 2
    calibration = [
        {"id": f"a{at}", "text": goal, "kind": "harmful", "cluster": f"a{at}"}
        for at, (goal, _) in enumerate(advbench[-half:])
    ]
    calibration += [
        {"id": f"b{at}", "text": prompt, "kind": "benign", "cluster": f"b{at}"}
        for at, (prompt, _) in enumerate(plain[600 : 600 + n - half])
    ]
    whole = n - n % 3  # a harmful probe and its twin stay together
    return {"calibration": calibration, "probes": probes[: max(3, whole)]}


def _goal(row: Row) -> str:
    return str(row.get("goal") or row.get("Goal"))


def _table(path: Path) -> Iterable[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _instructions(data: Path) -> Iterator[tuple[str, str]]:
    """Yield instructions with their answers."""
    folder = data / "FinetuningSafety"
    rows = json.loads((folder / "alpaca_data_safety_only.json").read_text(encoding="utf-8"))
    yield from _short((f"{row['instruction']}\n{row.get('input') or ''}".strip(), row["output"]) for row in rows)
    lines = (folder / "databricks-dolly-15k-safety-only.jsonl").read_text(encoding="utf-8").splitlines()
    dolly = map(json.loads, filter(None, lines))
    yield from _short((f"{row['instruction']}\n{row.get('context') or ''}".strip(), row["response"]) for row in dolly)


def _short(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((prompt, reply) for prompt, reply in rows if len(prompt) < 300 and 0 < len(reply) < LONGEST)


def _support(data: Path) -> Iterator[tuple[str, str, str]]:
    """Yield what people said, the supporter's reply and its strategy."""
    for name in ("multiesc_valid", "multiesc_test"):
        for line in (data / "ESConv" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            turns = json.loads(line)["dialog"]
            for before, turn in itertools.pairwise(turns):
                is_answer = (before["speaker"], turn["speaker"]) == ("usr", "sys")
                if is_answer and len(before["text"]) > 40 and 40 < len(turn["text"]) < 300:
                    yield before["text"], turn["text"], turn.get("strategy") or ""


def _harmless(data: Path) -> Iterator[tuple[str, str, str]]:
    """Yield single requests with the chosen and the rejected reply."""
    with gzip.open(data / "HH-RLHF" / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            better, worse = (row[key].split("\n\nAssistant:") for key in ("chosen", "rejected"))
            replies = [texts[1].strip() for texts in (better, worse) if len(texts) == 2]
            if len(replies) == 2 and replies[0] != replies[1] and all(0 < len(text) < LONGEST for text in replies):
                yield better[0].replace("\n\nHuman:", "").strip(), *replies  # type: ignore[misc]


if __name__ == "__main__":
    main()
