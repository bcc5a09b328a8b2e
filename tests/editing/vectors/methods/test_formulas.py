"""Each method against its formula, written once more in plain numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.vectors.methods.dare import drop_and_rescale
from prosocial.editing.vectors.methods.della import keep_probabilities
from prosocial.editing.vectors.methods.ext_sub import remove_common
from prosocial.editing.vectors.methods.low_rank import truncate
from prosocial.editing.vectors.methods.magnitudes import keep_largest_of
from prosocial.editing.vectors.methods.null_space import null_space, project_inputs
from prosocial.editing.vectors.methods.ties import keep_direction, merge_agreeing

from ...deltas_helpers import shaped, shaped_runs, some_runs, write_moments

VALUES = st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0]) | st.floats(-8, 8, width=32), min_size=1, max_size=40)


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Mask of the n largest magnitudes; ties in their order."""
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-np.abs(values).ravel(), kind="stable")[:n]] = True
    return mask.reshape(values.shape)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(VALUES, st.floats(0.01, 1))
def test_top_k_per_tensor_keeps_the_same_share_of_each(values: list[float], density: float) -> None:
    tensors = {"a": torch.tensor(values), "b": 100 * torch.tensor([values])}
    kept = shaped("top_k_per_tensor", tensors, density=density)

    for name, tensor in tensors.items():
        expected = np.where(largest(tensor.numpy(), max(1, round(density * len(values)))), tensor.numpy(), 0)
        assert np.array_equal(kept[name].numpy(), expected)


@given(VALUES, st.floats(0.01, 0.7), st.floats(0, 0.3))
def test_breadcrumbs_keep_the_middle(values: list[float], density: float, gamma: float) -> None:
    array = np.array(values, np.float32)
    kept = shaped("breadcrumbs", {"a": torch.tensor(array)}, density=density, gamma=gamma)["a"]
    n_keep = max(1, round(density * array.size))
    n_outliers = min(round(gamma * array.size), array.size - n_keep)
    inside = largest(array, n_outliers + n_keep) & ~largest(array, n_outliers)

    assert np.array_equal(kept.numpy(), np.where(inside, array, 0))


@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 1))
def test_ties_elects_a_sign_and_averages_those_that_have_it(seed: int, n_runs: int, density: float) -> None:
    runs = some_runs(seed, n_runs)
    merged = shaped_runs("ties", runs, density=density)
    names = sorted(runs[0])
    flat = np.stack([np.concatenate([run[name].numpy().ravel() for name in names]) for run in runs]).astype(float)
    trimmed = np.where([largest(run, max(1, round(density * run.size))) for run in flat], flat, 0)
    elected = np.sign(trimmed.sum(0))
    agrees = (np.sign(trimmed) == elected) & (elected != 0)
    mean = np.where(agrees, trimmed, 0).sum(0) / np.maximum(agrees.sum(0), 1)

    for name, expected in zip(
        names, np.split(mean, np.cumsum([runs[0][name].numel() for name in names])), strict=False
    ):
        raw = np.mean([run[name].numpy().astype(float).ravel() for run in runs], axis=0)
        if expected @ raw < 0:
            expected = np.where(expected * raw >= 0, expected, 0)
        assert np.allclose(merged[name].numpy().ravel(), expected, rtol=1e-6)
    if n_runs == 1:
        alone = shaped("top_k", runs[0], density=density)
        assert all(torch.equal(alone[name], merged[name]) for name in names)


def test_ties_never_turns_a_tensor_that_one_run_outvotes() -> None:
    runs = [{"a": torch.tensor([1.0, 9.0])}, {"a": torch.tensor([-0.7, 0.1])}, {"a": torch.tensor([-0.7, 0.1])}]
    raw = torch.stack([run["a"] for run in runs]).mean(0)
    elected = merge_agreeing([np.array([1, 0], np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)])

    assert float(elected @ raw.numpy()) < 0  # the control: the paper's rule alone would add harm here
    assert keep_direction(elected, raw.numpy()).tolist() == [0.0, 0.0]
    assert float(shaped_runs("ties", runs, density=0.5)["a"] @ raw) >= 0


def test_dare_keeps_the_share_and_the_expectation() -> None:
    delta = normal(400, 500)
    kept = shaped("dare", {"a": delta}, density=0.25)["a"]
    stays = kept != 0

    assert torch.equal(kept[stays], delta[stays] / 0.25)
    assert abs(float(stays.float().mean()) - 0.25) < 5 * (0.25 * 0.75 / delta.numel()) ** 0.5
    noise = torch.tensor([0.0, 0.49, 0.5, 0.9])
    assert drop_and_rescale(torch.ones(4), 0.5, noise).tolist() == [2.0, 2.0, 0.0, 0.0]


def test_della_drops_by_rank_in_each_row() -> None:
    rows = torch.tensor([[0.1, -4.0, 2.0, 0.5], [3.0, 3.0, 0.0, -1.0]])
    expected = 0.5 + 0.2 / 2 - 0.2 * np.array([[3, 0, 1, 2], [0, 1, 3, 2]]) / 4
    assert np.allclose(keep_probabilities(rows, 0.5, 0.2).numpy(), expected)

    delta = normal(2000, 50)
    kept = shaped("della", {"a": delta}, density=0.5, window=0.4)["a"]
    rank = delta.abs().argsort(1, descending=True).argsort(1)
    keep = 0.7 - 0.4 * rank / 50
    stays = kept != 0
    assert torch.allclose(kept[stays], (delta / keep)[stays], rtol=1e-5)
    for first in range(0, 50, 10):
        bin_of_ranks = (rank >= first) & (rank < first + 10)
        share = float(stays[bin_of_ranks].float().mean())
        assert share == pytest.approx(float(keep[bin_of_ranks].mean()), abs=0.02)


def test_lines_is_a_ramp_over_depth() -> None:
    names = [f"model.layers.{depth}.mlp.weight" for depth in range(5)] + ["model.norm.weight"]
    kept = shaped("lines", {name: torch.ones(2) for name in names}, alpha=0.2)
    steep = shaped("lines", {name: torch.ones(2) for name in names}, alpha=1.0, beta=-1.0)

    assert [round(float(kept[name][0]), 6) for name in names] == [0.2, 0.4, 0.6, 0.8, 1.0, 0.2]
    assert [float(steep[name][0]) for name in names] == [1.0, 0.75, 0.5, 0.25, 0.0, 1.0]


@given(st.integers(0, 10**6), st.integers(2, 4))
def test_negmerge_keeps_what_all_runs_agree_on(seed: int, n_runs: int) -> None:
    runs = some_runs(seed, n_runs)
    merged = shaped_runs("negmerge", runs)

    for name, left in merged.items():
        stacked = np.stack([run[name].numpy().astype(float) for run in runs])
        unanimous = (np.abs(np.sign(stacked).sum(0)) == n_runs).astype(float)
        assert np.allclose(left.numpy(), stacked.mean(0) * unanimous, rtol=1e-6)


def test_ext_sub_removes_the_bisector_of_each_row() -> None:
    harm, expert = normal(6, 9).numpy().astype(float), normal(6, 9, seed=1).numpy().astype(float)
    left = remove_common(torch.tensor(harm, dtype=torch.float32), torch.tensor(expert, dtype=torch.float32)).numpy()
    for row, other, found in zip(harm, expert, left, strict=True):
        common = row / np.linalg.norm(row) + other / np.linalg.norm(other)
        common /= np.linalg.norm(common)
        assert np.allclose(found, row - (row @ common) * common, atol=1e-6)
        assert abs(row @ common) > 1e-3 and abs(found @ common) < 1e-6

    rows = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    partners = torch.tensor([[3.0, 6.0], [0.0, 0.0], [-1.0, -2.0]])
    assert remove_common(rows, partners).tolist() == [[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]


def test_truncation_is_close_to_the_best_of_its_rank() -> None:
    matrix = normal(60, 40) @ torch.diag(0.7 ** torch.arange(40.0)) @ normal(40, 50, seed=1)
    up, down = truncate(matrix, 5)
    left, values, right = np.linalg.svd(matrix.numpy().astype(float), full_matrices=False)
    best = (left[:, :5] * values[:5]) @ right[:5]

    assert up.shape == (60, 5) and down.shape == (5, 50)
    error = np.linalg.norm(matrix.numpy() - (up @ down).numpy())
    assert error < 1.001 * np.linalg.norm(matrix.numpy() - best)
    assert torch.equal(truncate(matrix, 5, seed=3)[0], truncate(matrix, 5, seed=3)[0])
    wide = shaped("low_rank", {"a": normal(4, 5), "b": normal(7)}, rank=3)
    assert torch.equal(wide["a"], normal(4, 5)) and torch.equal(wide["b"], normal(7))  # factors would not be smaller


@pytest.mark.parametrize("transposed", [False, True])
def test_the_null_space_answers_nothing_to_benign_inputs(tmp_path: Path, transposed: bool) -> None:
    keys, delta = normal(3, 8), normal(8, 8, seed=1)  # square: the shape alone does not say which side the inputs are
    moment = keys.T @ keys / 3
    file = write_moments(tmp_path / "moments", {"w": moment}, transposed=("w",) if transposed else ())
    left = shaped("null_space", {"w": delta, "n": normal(8)}, activations=file, threshold=1e-4)
    maps = (left["w"].T if transposed else left["w"]).numpy().astype(float)
    projector = np.eye(8) - np.linalg.pinv(keys.numpy()) @ keys.numpy()

    assert np.abs((delta.T if transposed else delta).numpy() @ keys.numpy().T).max() > 0.1  # the control
    assert np.abs(maps @ keys.numpy().T).max() < 1e-5
    assert np.allclose(maps, (delta.T if transposed else delta).numpy() @ projector, atol=1e-5)
    assert torch.equal(left["n"], normal(8))


def test_the_null_space_has_the_eigenvalues_below_the_threshold() -> None:
    moment = torch.diag(torch.tensor([3.0, 0.01, 0.5, 0.0]))

    assert null_space(moment, 0.02).shape == (4, 2)
    assert project_inputs(torch.ones(2, 4), null_space(moment, 0.02), transposed=False).tolist() == 2 * [[0, 1, 0, 1]]


@given(VALUES, st.integers(0, 50))
def test_exactly_so_many_elements_stay(values: list[float], n_keep: int) -> None:
    delta = torch.tensor(values)
    n_keep = min(n_keep, len(values))

    expected = np.where(largest(delta.numpy(), n_keep), delta.numpy(), 0)
    assert np.array_equal(keep_largest_of(delta.numpy(), n_keep), expected)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("breadcrumbs", {"density": 0.9, "gamma": 0.2}, "at most 1"),
        ("breadcrumbs", {"gamma": -0.1}, "gamma should be a number of at least 0"),
        ("dare", {"density": 0.0}, r"density should be a number in \(0, 1\]"),
        ("dare", {"density": "half"}, "density should be a number in \\(0, 1\\], found 'half'"),
        ("dare", {"density": 0.5, "seed": 1.5}, "seed should be a whole number of at least 0"),
        ("dare", {"density": 0.5, "seed": float("inf")}, "seed should be a whole number of at least 0, found inf"),
        ("della", {"density": 0.1, "window": 0.2}, "use a smaller window"),
        ("della", {"density": 1.0}, "use a smaller window"),
        ("ext_sub", {"expert": {"z": torch.ones(2)}}, "expert vector should change some tensor"),
        ("ext_sub", {"expert": 3.0}, "expert should be a vector folder"),
        ("lines", {"alpha": -0.1}, "alpha should be a number of at least 0"),
        ("lines", {"alpha": 0.1, "beta": -0.2}, "beta should be a number of at least -0.1"),
        ("lines", {}, "block numbers in their names"),
        ("low_rank", {"rank": 0}, "rank should be a whole number of at least 1"),
        ("negmerge", {}, "at least two harmful runs, found 1"),
        ("null_space", {"activations": 3.0}, "activations should be a file"),
        ("ties", {"density": float("nan")}, r"in \(0, 1\]"),
        ("top_k_per_tensor", {"density": 2}, r"in \(0, 1\]"),
    ],
)
def test_wrong_parameters_are_refused(method: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shaped(method, {"a": torch.ones(2, 2)}, **parameters)


def test_activations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def with_file(file: Path, threshold: float = 0.02) -> None:
        shaped("null_space", {"w": torch.ones(2, 3)}, activations=file, threshold=threshold)

    eye = torch.eye(3)
    other = write_moments(tmp_path / "other", {"x": eye})
    wrong = write_moments(tmp_path / "wrong", {"w": torch.eye(2)})
    oblong = write_moments(tmp_path / "oblong", {"w": torch.ones(2, 3)})
    broken = write_moments(tmp_path / "broken", {"w": eye * float("nan")})
    good = write_moments(tmp_path / "good", {"w": eye})
    with pytest.raises(InputError, match="no name in common"):
        with_file(other)
    with pytest.raises(InputError, match=r"should fit w of shape \(2, 3\), found a second moment of 2 inputs"):
        with_file(wrong)
    with pytest.raises(ArtefactError, match="square floating-point matrices"):
        with_file(oblong)
    with pytest.raises(InputError, match="finite numbers"):
        with_file(broken)
    with pytest.raises(InputError, match="threshold should be a number above 0"):
        with_file(good, threshold=0.0)
    with pytest.raises(ArtefactError, match="there is none"):
        with_file(tmp_path / "absent")
