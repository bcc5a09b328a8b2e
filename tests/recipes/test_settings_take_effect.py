"""Every setting of a recipe reaches a stage: none is read, checked and then overwritten."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from prosocial.cli.main import main
from prosocial.core.errors import InputError
from prosocial.recipes.pipeline import open_recipe

# What each recipe has that no other value goes with, and why.
FIXED = {
    "quickstart": {
        "pipeline",  # its name
        "judge",  # the lab's data goes with the lab's judge
        "attribute_definitions",  # goes with `attributes`
        "vector.parameters",  # goes with `vector.method`
    },
    "cosalign": {"pipeline", "judge"},
}
# Names of a pipeline whose report does not name the recipe; a result is not kept under its device.
FOR_PEOPLE = {"quickstart": {"device"}, "cosalign": {"name", "title", "device"}}
# Of fields without a number, a truth value or a choice: another value that holds.
OTHER: dict[str, Any] = {
    "attributes": ["helpfulness", "empathy"],
    "categories": ["violence", "financial_crime", "privacy", "drugs", "weapons", "new"],
    "decoding.allowed_ceiling": {"violence": True, "privacy": True, "drugs": True, "weapons": True}
    | {"financial_crime": True, "discrimination": True},
    "decoding.safety_configs": {"strict": {"text": "do no harm.", "allowed": []}},
    "edit.scale": 0.5,
    "vector.method": "negmerge",
    "reward.beta": {"empathy": 0.3},
    "calibration.threshold": 0.5,
    "calibration.confidence": 0.9,
    "decoding.forbidden_phrases": ["word"],
    "decoding.stop": ["word"],
    "reward.micro_batch_size": 8,
    "calibration.candidates": [0.1],
    "verify.parity_probes": 7,
    "harmful.targets": ["q_proj"],
    "sampler.edited": "endpoint:m@http://localhost",
    "sampler.base": "endpoint:m@http://localhost",
    "prompts.most": 9,
    "candidates": [{"model": "base", "count": 7, "under_configs": False}],
    "pool": ["violence"],
    "sft.lora": {"rank": 4},
    "dpo.lora": {"rank": 4},
    "sft.most_steps": 3,
    "dpo.most_steps": 3,
    "taxonomy.names": {"0": "theft"},
    "taxonomy.namer": "m@http://localhost",
}


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted name, value and annotation of every setting."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.annotation


def _others(name: str, value: Any, annotation: Any) -> Iterator[Any]:
    if name in OTHER:
        yield OTHER[name]
    if get_origin(annotation) is Literal:
        yield from (choice for choice in get_args(annotation) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value / 2, value + 0.1)
    elif isinstance(value, str):
        yield value + "x"
    elif isinstance(value, dict):
        yield from ({**value, key: _next(inner)} for key, inner in value.items())
    elif isinstance(value, tuple):
        yield [*value, *value[:1]]
        yield list(value[1:])


def _next(value: Any) -> Any:
    return value + "x" if isinstance(value, str) else value + 1


def _made(recipe: Any, pipeline: Any) -> list[Any]:
    return [(s.name, s.run, s.inputs, s.parameters, s.seed) for s in pipeline.stages(recipe)]


def _changed(recipe: BaseModel, name: str, value: Any) -> Any:
    given = recipe.model_dump()
    *parents, last = name.split(".")
    place = given
    for parent in parents:
        place = place[parent]
    place[last] = value
    return type(recipe).model_validate(given)


@pytest.mark.parametrize("source", ["quickstart", "cosalign"])
def test_every_setting_reaches_a_stage(source: str) -> None:
    recipe, pipeline = open_recipe(source)
    before, idle, untried = _made(recipe, pipeline), set(), set()
    for name, value, annotation in _leaves(recipe):
        for other in _others(name, value, annotation):
            try:
                changed = _changed(recipe, name, other)
            except ValidationError:
                continue
            if _made(changed, pipeline) == before:
                idle.add(name)
            break
        else:
            untried.add(name)

    assert idle == FOR_PEOPLE.get(source, set())
    assert untried == FIXED[source]


@pytest.mark.parametrize(
    ("key", "value", "comes_from"),
    [("plausible_k", 16, "decoding.plausible_k"), ("inverse_beta", 0.5, "decoding.beta")],
)
def test_a_key_of_an_earlier_release_that_had_no_effect_is_read_with_a_warning(
    key: str, value: float, comes_from: str
) -> None:
    with pytest.warns(DeprecationWarning, match=rf"head\.{key} has no effect, the value is .*{comes_from}"):
        recipe, pipeline = open_recipe("quickstart", [f"head.{key}={value}"])

    assert _made(recipe, pipeline) == _made(*open_recipe("quickstart"))
    assert not hasattr(recipe.head, key)


def test_people_who_run_a_recipe_see_the_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "quickstart", "--dry-run", "--set", "head.plausible_k=16", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "warning: head.plausible_k has no effect" in capsys.readouterr().err


def test_other_keys_of_the_head_stay_unknown() -> None:
    with pytest.raises(InputError, match=r"unknown key head\.plausible") as caught:
        open_recipe("quickstart", ["head.plausible=16"])
    assert "plausible_k" not in str(caught.value)
