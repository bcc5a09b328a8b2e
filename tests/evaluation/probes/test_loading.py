"""Public probe sets are read in their authors' formats; the rows here are stand-ins."""

import csv
import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.evaluation.probes.loading import FOLDER_VARIABLE, load_probes
from prosocial.evaluation.probes.tables import read_table

REAL = os.environ.get(FOLDER_VARIABLE)
HH = "\n\nHuman: How do I glim?\n\nAssistant: First the vat.\n\nHuman: And then?\n\nAssistant: Then stop."
ROWS: dict[str, list[dict[str, Any]]] = {
    "HarmBench": [
        {"Behavior": "Glim it", "FunctionalCategory": "standard", "SemanticCategory": "glimming", "Tags": "",
         "ContextString": "", "BehaviorID": "glim_it"},
        {"Behavior": "Glim that", "FunctionalCategory": "contextual", "SemanticCategory": "glimming", "Tags": "context",
         "ContextString": "A vat.", "BehaviorID": "glim_that"},
    ],
    "AdvBench": [{"goal": "Glim the vat", "target": "Sure, here"}, {"goal": "Vorl it", "target": "Sure, here"}],
    "StrongREJECT": [{"category": "glimming", "source": "custom", "forbidden_prompt": "Glim, please"}],
    "SimpleSafetyTests": [
        {"id": "sst_001", "harm_area": "Vorling", "counter": 1, "category": "advice", "prompts_final": "How to vorl?"}
    ],
    "Do-Not-Answer": [
        {"id": 0, "risk_area": "R", "types_of_harm": "T", "specific_harms": "S", "question": "Why vorl?"}
    ],
    "XSTest": [
        {"id": 1, "prompt": "Kill a process?", "type": "homonyms", "label": "safe", "focus": "kill", "note": ""},
        {"id": 2, "prompt": "Glim?", "type": "contrast_homonyms", "label": "unsafe", "focus": "kill", "note": ""},
    ],
    "CoSApien": [
        {"prompt": "Tea?", "scenario": "A tea house. No coffee.", "type": "allowed"},
        {"prompt": "Coffee?", "scenario": "A tea house. No coffee.", "type": "disallowed"},
        {"prompt": "Tea and coffee?", "scenario": "A tea house. No coffee.", "type": "partial"},
    ],
    "CoSAlign-Test": [
        {"prompt": "Glim", "config_allowed": ["glimming"], "prompt_categories": ["glimming"], "allowed": True},
        {"prompt": "Glim", "config_allowed": [], "prompt_categories": ["glimming"], "allowed": False},
    ],
    "HH-RLHF": [{"chosen": HH, "rejected": HH}],
}  # fmt: skip


def _write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    if isinstance(next(iter(rows[0].values())), str) and name not in ("CoSAlign-Test", "HH-RLHF"):
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    path = folder / f"{name}.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    return path


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_told_by_its_columns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, name, ROWS[name])
    found = load_probes(path)
    assert len(found) == len(ROWS[name])
    assert len({probe.id for probe in found}) == len(found)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert load_probes(name) == load_probes(name.lower().replace("-", "")) == load_probes(tmp_path) == found


def test_rows_become_what_they_ask(tmp_path: Path) -> None:
    def read(name: str) -> list[Any]:
        return load_probes(_write(tmp_path, name, ROWS[name]))

    assert [probe.text for probe in read("HarmBench")] == ["Glim it", "A vat.\n\nGlim that"]
    safe, unsafe = read("XSTest")
    assert (safe.kind, unsafe.kind, safe.cluster) == ("twin", "harmful", unsafe.cluster)
    assert [probe.kind for probe in read("CoSApien")] == ["benign", "harmful", "partial"]
    assert read("CoSApien")[0].messages[0] == {"role": "system", "content": "A tea house. No coffee."}
    first, second = read("CoSAlign-Test")
    assert (first.kind, second.kind, first.cluster == second.cluster) == ("benign", "harmful", True)
    (conversation,) = read("HH-RLHF")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "user"]
    assert conversation.text == "And then?"


def test_jailbreakbench_pairs_each_request_with_its_twin(tmp_path: Path) -> None:
    for name, goal in (("harmful", "Glim the vat"), ("benign", "Paint the vat")):
        row = {"Index": 3, "Goal": goal, "Target": "Sure", "Behavior": "Vats", "Category": "glimming"}
        _write(tmp_path, name, [row | ({"Source": "Original"} if name == "harmful" else {})])
    by_kind = {probe.kind: probe for probe in load_probes(tmp_path)}
    assert by_kind["twin"].twin_of == by_kind["harmful"].id
    assert by_kind["twin"].cluster == by_kind["harmful"].cluster


def test_our_own_jsonl_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "p1", "kind": "benign", "text": "Tea?"}')
    assert load_probes(path)[0].id == "p1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("goal,target\n", "no format fits"),
        ("apples,pears\n1,2\n", "no format fits"),
        ("goal,target\n ,Sure\n", "row 1.*empty"),
    ],
)
def test_tables_that_are_no_probes_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "probes.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_probes(path)


def test_missing_broken_and_clashing_sources_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(UnknownNameError, match="AdvBench"):
        load_probes("nosuchset")
    with pytest.raises(InputError, match="does not exist"):
        load_probes(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=FOLDER_VARIABLE):
        load_probes("AdvBench")
    broken = tmp_path / "x.jsonl.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(InputError, match="readable table"):
        read_table(broken)
    broken.unlink()
    for name, goal in (("a", "Glim"), ("b", "Vorl")):
        (tmp_path / f"{name}.csv").write_text(f"goal,target\n{goal},Sure\n")
    with pytest.raises(InputError, match="unique ids, found 'advbench-0' twice"):
        load_probes(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="should name a folder"):
        load_probes("AdvBench")


@pytest.mark.skipif(not REAL, reason=f"needs {FOLDER_VARIABLE}")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("AdvBench", {"harmful": 520}),
        ("StrongREJECT", {"harmful": 313}),
        ("JailbreakBench", {"harmful": 100, "twin": 100}),
        ("SimpleSafetyTests", {"harmful": 100}),
        ("Do-Not-Answer", {"harmful": 939}),
        ("HH-RLHF", {"harmful": 2312}),
    ],
)
def test_the_public_sets_are_read_whole(name: str, kinds: dict[str, int]) -> None:
    found = load_probes(name)
    assert Counter(probe.kind for probe in found) == kinds
    twins = [probe for probe in found if probe.kind == "twin"]
    assert {probe.twin_of for probe in twins} <= {probe.id for probe in found}
