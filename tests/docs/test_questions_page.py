"""The tables of docs/questions.md agree with what is tested, and with the calibration's bound."""

import re

import pytest
import transformers
from scipy.stats import beta

from ..architectures import CONFIGS
from ..export.graph.test_architectures import SUPPORTED
from .pages import ROOT

PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")


def rows(first_cell: str) -> list[list[str]]:
    """Return the cells of the table whose header begins with a cell, without its first two lines."""
    table = PAGE.partition(f"\n| {first_cell} |")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_architectures_are_those_that_are_tested() -> None:
    portable = [*SUPPORTED, "gpt-oss", "bloom"]
    auto = transformers.AutoModelForCausalLM._model_mapping
    expected = {
        name: [
            f"`{auto[getattr(transformers, kind)].__name__}`",
            "yes" if name in SUPPORTED else "no",
            "yes" if name in portable else "no",
        ]
        for name, (kind, _) in CONFIGS.items()
    }

    assert {name: cells for name, *cells in rows("architecture")} == expected


@pytest.mark.parametrize("row", rows("`max_leak`"), ids=lambda row: row[0])
def test_so_many_prompts_show_the_bound_and_one_fewer_does_not(row: list[str]) -> None:
    share, *counts = (float(re.sub("[ %,]", "", cell)) for cell in row)
    for leaks, n in zip((0, 1, 3, 10), map(int, counts), strict=True):
        assert beta.ppf(0.95, leaks + 1, n - leaks) <= share / 100 < beta.ppf(0.95, leaks + 1, n - 1 - leaks)
