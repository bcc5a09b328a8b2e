"""Examples in docstrings run, public lists are true, and nothing here needs torch to be imported."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import prosocial.verify

WITH_INSPECT = "prosocial.evaluation.inspect_ai."  # needs an extra that is in no environment for work
TORCH = ("prosocial.verify.parity.steered_margins", "prosocial.verify.parity.torch_points")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(prosocial.verify.__path__, "prosocial.verify.")
    if module.name not in TORCH and not module.name.startswith(WITH_INSPECT)
)
PACKAGES = [
    "prosocial.verify",
    *(
        f"prosocial.verify.{name}"
        for name in ("cosa_score", "judges", "parity", "report", "signing", "statistics", "steering", "sweep")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_no_other(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018


def test_nothing_but_what_runs_the_reference_imports_torch() -> None:
    program = (
        f"import importlib, sys\nfor name in {MODULES!r}: importlib.import_module(name)\n"
        "assert not {'torch', 'transformers', 'onnxruntime', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
