"""YAML from strangers takes bounded time and memory, and is an error of one line."""

import time
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.core.yaml_values import DEEPEST, LONGEST_TEXT, read_yaml
from prosocial.evaluation.sweep import SearchSpace
from prosocial.recipes.reading.loading import load_recipe, recipe_pipeline
from prosocial.recipes.reading.overrides import parse_override
from prosocial.recipes.reading.settings import read_settings
from prosocial.recipes.steering.schema import Recipe
from prosocial.training.gate.calibration import GateCalibration


def laughs(first: str, level: str, n_levels: int, last: str) -> str:
    lines = [first] + [level.format(number=number, before=number - 1) for number in range(1, n_levels)]
    return "\n".join([*lines, last.format(last=n_levels - 1)])


TEN = ",".join(["*a{before}"] * 10)
BOMBS: dict[str, str] = {
    "billion laughs": laughs("a0: &a0 [x,x]", f"a{{number}}: &a{{number}} [{TEN}]", 10, "pipeline: *a{last}"),
    "laughs in mappings": laughs("a0: &a0 {x: 1}", "a{number}: &a{number} {{l: *a{before}, r: *a{before}}}", 40, ""),
    "laughs by merging": laughs(
        "a0: &a0 {x: 1}", "a{number}: &a{number} {{<<: [*a{before}, *a{before}]}}", 40, "pipeline: *a{last}"
    ),
    "laughs as keys": laughs("a0: &a0 [x,x]", f"a{{number}}: &a{{number}} [{TEN}]", 10, "? *a{last}\n: 1"),
    "laughs in a set": laughs("a0: &a0 [x,x]", f"a{{number}}: &a{{number}} [{TEN}]", 10, "s: !!omap [k: *a{last}]"),
    "quadratic: a long text many times": "a: &a [" + "x," * 1000 + "x]\nb: [" + "*a," * 1000 + "*a]",
    "a list in itself": "a: &a [*a]",
    "a mapping in itself": "a: &a {b: *a}",
    "a mapping as its own key": "&a {*a : 1}",
    "a list in itself by way of another": "a: &a [&b {c: *a}]",
    "deep lists": "[" * 100_000,
    "deep closed lists": "[" * 200 + "]" * 200,
    "deep mappings": "{a: " * 5_000,
    "deep blocks": "- " * 20_000 + "x",
    "deep keys": "? " * 20_000 + "x",
    "just too deep": "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "too long": "# " + "x" * LONGEST_TEXT,
    "integer of 5,000 digits": "a: " + "1" * 5_000,
    "integer of 200,000 digits": "a: " + "1" * 200_000,
    "hexadecimal of 200,000 digits": "a: 0x" + "f" * 200_000,
    "binary of 200,000 digits": "a: 0b" + "1" * 200_000,
    "sexagesimal of 60,000 digits": "a: 1" + ":1" * 60_000,
    "sexagesimal fraction": "a: 1" + ":1" * 60_000 + ".5",
    "tagged integer": "a: !!int '" + "1" * 5_000 + "'",
    "tagged word": "a: !!int word",
    "tagged float": "a: !!float word",
    "a date that does not exist": "a: 2001-99-99",
    "a time that does not exist": "a: 2001-12-14 99:59:43",
    "a year 0": "a: 0000-01-01",
    "python object": "a: !!python/object/apply:os.system ['true']",
    "python name": "a: !!python/name:os.system",
    "unknown tag": "a: !secret x",
    "binary that is none": "a: !!binary 'a'",
    "list as a key": "? [a, b]\n: 1",
    "key twice": "a: 1\na: 2",
    "key twice in two spellings": "a: 1\n'a': 2",
    "number twice in two spellings": "1: x\n0x1: y",
    "a long key twice": f"{'k' * 1000}: 1\n{'k' * 1000}: 2",
    "two documents": "a: 1\n---\nb: 2",
    "an alias without anchor": "a: *b",
    "an anchor twice": "a: &x 1\nb: &x 2\nc: [*x",
    "a control character": "a: \x00",
    "a lone surrogate": "a: \ud800",
    "a directive of the future": "%YAML 9.9\n---\na: 1",
    "tabs": "a:\n\tb: 1",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_document_that_is_a_trap_is_one_line_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError) as refused:
        read_yaml(text, where="recipe x")
    assert time.process_time() - started < 10
    assert str(refused.value).startswith("recipe x") and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_ordinary_anchors_remain() -> None:
    text = "base: &base {rank: 4}\nhead: {<<: *base, beta: 1e-2}\nlist: [*base, *base]"
    assert read_yaml(text, where="x")["head"] == {"rank": 4, "beta": 0.01}
    assert read_yaml("[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1), where="x")


@pytest.mark.parametrize("name", ["billion laughs", "a list in itself", "deep lists", "integer of 5,000 digits"])
def test_every_way_in_is_bounded(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BOMBS[name], encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError):
        recipe_pipeline(path, default="steering")
    with pytest.raises(InputError):
        load_recipe(path, model=Recipe)
    with pytest.raises(InputError):
        parse_override(f"a={BOMBS[name]}")
    with pytest.raises(InputError):
        read_settings(GateCalibration, [f"max_leak={BOMBS[name]}"])


@pytest.mark.parametrize("value", ["[a, b]", "{a: 1}", "1", "2001-01-01", "null"])
def test_a_pipeline_that_is_no_name_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"pipeline: {value}\n")
    with pytest.raises(InputError, match="pipeline should be a name"):
        recipe_pipeline(tmp_path / "recipe.yaml", default="steering")


HUGE = [str(2**63), str(-(2**63) - 1), "9" * 60, "-" + "9" * 60, "0x" + "f" * 40, "1" + ":59" * 18]


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("key", ["seed", "head.steps", "gate.rank", "decoding.max_new_tokens"])
def test_a_giant_number_in_a_recipe_is_one_line(key: str, number: str) -> None:
    with pytest.raises(InputError, match=key) as refused:
        load_recipe("quickstart", [f"{key}={number}"], model=Recipe)
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", ["-1", str(2**32), "1.5", "1e30", ".inf", ".nan", "word", "[1]", "null"])
def test_a_seed_that_no_generator_accepts_is_one_line(seed: str) -> None:
    with pytest.raises(InputError, match="seed"):
        load_recipe("quickstart", [f"seed={seed}"], model=Recipe)
    assert load_recipe("quickstart", [f"seed={2**32 - 1}"], model=Recipe).seed == 2**32 - 1


@pytest.mark.parametrize("scale", [(0.0, 1e308), (0.0, float("inf")), (float("nan"), 1.0), (0.0, 1e6), (2.0, 1.0)])
def test_a_sweep_has_a_bounded_number_of_scales(scale: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="scales should run"):
        SearchSpace(("plain",), scale=scale)
