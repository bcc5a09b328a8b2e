"""Methods shape a vector; none of them turns it round."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.editing.vectors.methods import METHODS, Method
from prosocial.editing.vectors.methods.magnitudes import Threshold, find_thresholds
from prosocial.editing.vectors.methods.project import remove_component
from prosocial.editing.vectors.statistics import cosine, inner_product, norm

from ...deltas_helpers import Tensors, shaped, shaped_runs, some_runs, write_moments

PAGE = (Path(__file__).parents[4] / "docs" / "methods.md").read_text(encoding="utf-8")
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)
# Few distinct values, so that ties are common.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0000001, 0.5, -0.5, 1e-40, 3e38])


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Second moments of two directions out of the eight inputs of w.0.a."""
    inputs = torch.randn(2, 8)
    return write_moments(tmp_path_factory.mktemp("moments") / "moments", {"w.0.a": inputs.T @ inputs})


def parameters_of(method: str, companion: dict[str, torch.Tensor], activations: Path) -> dict[str, object]:
    """Values for the parameters that must be given."""
    known = {"density": 0.3, "utility": companion, "expert": companion, "rank": 2, "activations": activations}
    return {name: known[name] for name in METHODS[method].parameters}


@given(st.lists(st.lists(FLOATS | TIED, min_size=1, max_size=30), min_size=1, max_size=4), st.floats(0.01, 1))
def test_top_k_keeps_the_largest_and_exactly_so_many(values: list[list[float]], density: float) -> None:
    tensors = {f"t{index}": torch.tensor(row) for index, row in enumerate(values)}
    kept = shaped("top_k", tensors, density=density)
    before, after = torch.cat(list(tensors.values())), torch.cat(list(kept.values()))
    stays = after != 0
    n_keep = max(1, round(density * len(before)))

    assert torch.equal(after[stays], before[stays])
    assert int(stays.sum()) == min(n_keep, int((before != 0).sum()))
    if stays.any() and not stays.all():
        assert before[stays].abs().min() >= before[~stays].abs().max()


def test_ties_stay_in_the_order_of_names_then_of_elements() -> None:
    kept = shaped("top_k", {"b": torch.ones(2), "a": torch.tensor([[-1.0, 1.0], [1.0, 2.0]])}, density=0.5)

    assert kept["a"].tolist() == [[-1.0, 1.0], [0.0, 2.0]]
    assert kept["b"].tolist() == [0.0, 0.0]


def test_the_threshold_is_the_nth_magnitude_of_all() -> None:
    deltas = Tensors({"a": torch.randn(500), "b": 3 * torch.randn(70, 7)})
    magnitudes = [np.abs(deltas.delta(name)).reshape(-1) for name in deltas.names]
    everything = np.sort(np.concatenate(magnitudes))[::-1]
    sizes = {name: deltas.delta(name).size for name in deltas.names}
    for n_keep in (1, 2, 100, 989, 990):
        (threshold,) = find_thresholds(sizes, lambda name: ([piece] for piece in deltas.pieces(name)), n_keep)
        assert np.uint32(threshold.magnitude).view(np.float32) == everything[n_keep - 1]
        assert sum(threshold.n_ties.values()) == 1


def test_full_density_changes_nothing_and_pieces_do_not_matter() -> None:
    tensors = {"a": torch.randn(1 << 19), "b": torch.randn(3)}

    assert all(torch.equal(kept, tensors[name]) for name, kept in shaped("top_k", tensors, density=1.0).items())
    threshold = Threshold(int(np.float32(1.0).view(np.uint32)), {"a": 1})
    values = np.array([1.0, 1.0, 2.0], np.float32)
    assert threshold.keep("a", values).tolist() == [1.0, 0.0, 2.0]
    assert threshold.keep("b", values).tolist() == [0.0, 0.0, 2.0]


def test_projection_leaves_nothing_along_the_utility_vector() -> None:
    delta, utility = torch.randn(8, 5), torch.randn(8, 5)
    left = remove_component(delta, utility)

    assert abs(cosine(delta, utility) or 0) > 1e-3  # the control: there was something to remove
    assert abs(inner_product(left, utility)) < 1e-5 * norm(left) * norm(utility)
    assert torch.allclose(remove_component(delta, -3 * utility), left, atol=1e-6)
    assert torch.equal(remove_component(delta, torch.zeros(8, 5)), delta)
    assert not remove_component(delta, 2.5 * delta).any()


@given(st.integers(0, 10**6), st.floats(-1, 1), st.integers(1, 4))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_method_turns_a_vector_round(activations: Path, method: str, seed: int, share: float, n_runs: int) -> None:
    runs = some_runs(seed, n_runs + (method == "negmerge"))
    companion = {"w.0.a": share * runs[0]["w.0.a"] + (1 - abs(share)) * 1e-3 * torch.randn(6, 8)}
    given_parameters = parameters_of(method, companion, activations)
    deltas = Tensors(*runs)

    for name, left in shaped_runs(method, runs, **given_parameters).items():
        raw = torch.from_numpy(deltas.delta(name))
        assert left.shape == raw.shape and left.dtype == torch.float32
        assert inner_product(left, raw) >= 0
        if METHODS[method].elementwise:
            assert bool((left * raw >= 0).all()) and not left[raw == 0].any()


@given(st.integers(0, 10**6), st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_follow_the_scale_of_the_vector_and_repeat_themselves(
    activations: Path, method: str, seed: int, scale: float
) -> None:
    runs = some_runs(seed, 2)
    given_parameters = parameters_of(method, {"w.0.a": torch.randn(6, 8)}, activations)
    first = shaped_runs(method, runs, **given_parameters)
    again = shaped_runs(method, runs, **given_parameters)
    scaled = [{name: scale * tensor for name, tensor in run.items()} for run in runs]

    assert any(left.any() for left in first.values())
    for name, left in shaped_runs(method, scaled, **given_parameters).items():
        assert torch.equal(first[name], again[name])
        assert torch.allclose(left, scale * first[name], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("method", ["dare", "della"])
def test_noise_hangs_on_seed_and_name_and_on_nothing_else(method: str) -> None:
    tensors = {"a": torch.randn(40, 50), "b": torch.randn(40, 50)}
    together = shaped(method, tensors, density=0.5)

    assert torch.equal(together["b"], shaped(method, {"b": tensors["b"]}, density=0.5)["b"])
    assert not torch.equal(together["b"], shaped(method, tensors, density=0.5, seed=1)["b"])
    assert not torch.equal(together["a"] != 0, together["b"] != 0)


def faults_of(page: str, methods: Mapping[str, Method]) -> list[str]:
    """Return what the page about the methods lacks."""
    faults = []
    if re.findall(r"^## `(\w+)`", page, re.MULTILINE) != sorted(methods):
        faults.append(f"the sections should be {', '.join(sorted(methods))}")
    elementwise = ", ".join(f"`{name}`" for name in sorted(methods) if methods[name].elementwise)
    if f"({elementwise})" not in " ".join(page.split()):
        faults.append(f"the methods that work element by element should be listed as {elementwise}")
    for name, method in methods.items():
        section = page.partition(f"## `{name}`")[2].partition("\n## ")[0]
        parameters = " ".join(section.partition("- Parameters:")[2].partition("\n- ")[0].split())
        numbers = {key: value for key, value in method.defaults.items() if isinstance(value, int | float)}
        for parameter in (*method.parameters, *method.defaults):
            default = rf" \([^)]*\b{numbers[parameter]}\)" if parameter in numbers else ""
            if not re.search(f"`{parameter}`{default}", parameters):
                faults.append(f"{name} should describe {parameter} and its default")
        if not re.search(r"arXiv (\d{4}\.\d{4,5})", section):
            faults.append(f"{name} should name its source")
    return faults


def test_every_method_is_described() -> None:
    assert faults_of(PAGE, METHODS) == []
    assert all(method.summary.endswith(".") and len(method.summary) < 120 for method in METHODS.values())


def test_projection_leaves_tensors_of_the_harm_vector_alone_that_utility_does_not_know() -> None:
    tensors = {"a": torch.randn(4), "b": torch.randn(4)}
    left = shaped("project", tensors, utility={"a": torch.randn(4)})

    assert torch.equal(left["b"], tensors["b"]) and not torch.equal(left["a"], tensors["a"])


@pytest.mark.parametrize(
    ("method", "parameters", "error", "message"),
    [
        ("shrink", {}, UnknownNameError, "known are breadcrumbs, dare, .*top_k"),
        ("plain", {"density": 0.5}, UnknownNameError, "unknown parameter of method plain 'density'"),
        ("top_k", {}, InputError, "should be given density"),
        ("top_k", {"density": 0.0}, InputError, r"in \(0, 1\]"),
        ("top_k", {"density": 1.5}, InputError, r"in \(0, 1\]"),
        ("top_k", {"density": float("nan")}, InputError, r"in \(0, 1\]"),
        ("project", {"utility": {"z": torch.ones(2)}}, InputError, "no name in common"),
        ("project", {"utility": {"a": torch.ones(3)}}, InputError, r"should have shape \(2,\), found \(3,\)"),
    ],
)
def test_wrong_parameters_are_refused(
    method: str, parameters: dict[str, object], error: type[InputError], message: str
) -> None:
    with pytest.raises(error, match=message):
        shaped(method, {"a": torch.ones(2)}, **parameters)
