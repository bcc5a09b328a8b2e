"""10,000 hostile logit vectors and inputs: no gated token comes through, no ceiling is lifted."""

import functools
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prosocial.export import Bundle
from prosocial.export.graph.axes import CONTROLS
from prosocial.steering.lexicographic import Controls
from prosocial.steering.steered_model import SteeredModel

N_ROWS = 500
ten_thousand = settings(max_examples=20)  # of 500 rows each
Floats = NDArray[np.float32]
Inputs = dict[str, Floats]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
HOSTILE = np.array(
    [
        np.nan,
        np.inf,
        -np.inf,
        -0.0,
        -1e-9,
        -1.0,
        0.0,
        1e-45,
        0.3,
        0.5,
        0.51,
        0.9,
        0.91,
        1.0,
        1.01,
        2.0,
        5.0,
        1e30,
        3e38,
    ],
    dtype=np.float32,
)
CEILING, TAU_CEILING, END, K = np.array([True, False, False]), 0.9, 1, 16


def hostile(rng: np.random.Generator, value: Floats, share: float) -> Floats:
    """Replace some of the numbers, in some of the rows, by hostile ones."""
    hit = (rng.random(value.shape) < share) & (rng.random(len(value)) < 0.5).reshape(-1, *[1] * (value.ndim - 1))
    return np.where(hit, rng.choice(HOSTILE, value.shape), value).astype(np.float32)


def some_controls(rng: np.random.Generator) -> Inputs:
    share = rng.random((N_ROWS, 1)).round(2)
    sound = {
        "preference": np.concatenate([share, 1 - share], 1),
        "allowed": rng.integers(0, 2, (N_ROWS, 3)).astype(float),
        "harm_threshold": rng.random(N_ROWS),
        "reward_scale": 100 * rng.random(N_ROWS),
    }
    return {name: hostile(rng, value.astype(np.float32), 0.2) for name, value in sound.items()}


def is_admissible(controls: Inputs) -> NDArray[np.bool_]:
    """Whether each row's controls are in range, by the words of the design."""
    preference, allowed, tau, scale = (controls[name].astype(np.float64) for name in CONTROLS)
    with np.errstate(invalid="ignore"):
        on_simplex = ((preference >= 0) & (preference <= 1)).all(1) & (np.abs(preference.sum(1) - 1) <= 1e-3)
    in_range = ((allowed >= 0) & (allowed <= 1)).all(1) & (tau >= 0) & (tau <= 1) & (scale >= 0) & (scale <= 100)
    return on_simplex & in_range


def token_risk(steered: SteeredModel, hidden: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Lowest and highest risk [N, V, C] by the formula that float32 can come to, for finite hidden states [N, H]."""
    U, M, b, a = (getattr(steered.gate, name).detach().double().numpy() for name in "UMba")

    def logit(h: NDArray[np.float64], U: Any, M: Any, b: Any, a: Any) -> NDArray[np.float64]:
        return np.stack([(h @ M[c].T) @ U.T + (h @ b[c] + a[c])[:, None] for c in range(len(M))], -1)

    middle, slack = logit(hidden, U, M, b, a), 1e-5 * logit(abs(hidden), abs(U), abs(M), abs(b), abs(a))
    return [1 / (1 + np.exp(-np.clip(middle + side * slack, -700, 700))) for side in (-1, 1)]


def check(steered: SteeredModel, z0: Floats, hidden: Floats, controls: Inputs, outputs: Outputs) -> int:
    """Hold outputs [N, ...] against the rule; return how many rows were open."""
    logits, risk, size = outputs
    admitted, is_end, closed = np.isfinite(logits), np.arange(logits.shape[1]) == END, size == 0
    is_sound = np.isfinite(hidden).all(1) & ~(np.isnan(z0) | (z0 == np.inf)).any(1)
    is_open = is_sound & is_admissible(controls)
    assert not np.isnan(logits).any() and not (logits == np.inf).any() and ((risk >= 0) & (risk <= 1)).all()
    assert (admitted[closed] == is_end).all() and closed[~is_sound].all() and (risk[~is_sound] == 1).all()

    z0 = np.where(np.isnan(z0) | (z0 == np.inf), -np.inf, z0)
    allowed = (controls["allowed"] > 0.5) & CEILING & is_open[:, None]
    tau = np.where(is_open, np.minimum(controls["harm_threshold"], TAU_CEILING), 0.0)[:, None]
    worst_low, worst_high = (
        np.minimum((one * ~allowed[:, None, :]).sum(-1), 1.0)
        for one in token_risk(steered, np.where(np.isfinite(hidden), hidden, 0).astype(np.float64))
    )
    least, let_in = np.sort(z0, 1)[:, -K, None], admitted & ~is_end
    assert not (let_in & (worst_low > tau + 1e-6)).any(), "a gated token came through"
    assert not (let_in & (z0 < least)).any() and (let_in.sum(1) == size).all()
    safe = (z0 > least) & (worst_high < tau - 1e-6) & (np.abs(z0) < 1e30) & is_open[:, None] & ~is_end
    safe &= np.abs(hidden).max(1, keepdims=True) < 1e6  # the shift stays finite
    assert admitted[safe].all(), "a safe token was kept out"
    return int((~closed).sum())


def some_logits(rng: np.random.Generator, width: int) -> tuple[Floats, Floats]:
    """Logits [N, 200] and hidden states [N, width]."""
    hidden = rng.normal(size=(N_ROWS, width)) * rng.choice([0.1, 1.0, 10.0, 1e4], (N_ROWS, 1))
    z0 = rng.normal(size=(N_ROWS, 200)) * rng.choice([0.0, 1.0, 30.0, 1e30], (N_ROWS, 1))
    return hostile(rng, z0.astype(np.float32), 0.02), hostile(rng, hidden.astype(np.float32), 0.02)


@ten_thousand
@given(seed=st.integers(0, 2**32 - 1))
def test_no_hostile_logits_let_a_gated_token_through(pico: Any, seed: int) -> None:
    steered, rng = cached_steered(pico), np.random.default_rng(seed)
    z0, hidden = some_logits(rng, steered.gate.M.shape[-1])
    controls = some_controls(rng)
    given_controls = Controls(*(torch.from_numpy(controls[name]) for name in CONTROLS))
    with torch.no_grad():
        outputs = steered.rule(torch.from_numpy(z0)[:, None], torch.from_numpy(hidden)[:, None], given_controls)
    found = tuple(value[:, 0].numpy() for value in outputs)
    assert check(steered, z0, hidden, controls, found) > N_ROWS // 50


@pytest.mark.parametrize("fixture", ["llama_bundle", "portable_bundle"])
@ten_thousand
@given(seed=st.integers(0, 2**32 - 1))
def test_no_hostile_logits_pass_the_nodes_of_a_bundle(
    request: pytest.FixtureRequest, llama_folder: Path, fixture: str, seed: int
) -> None:
    """The very nodes that a bundle ships, cut off from the model before them."""
    bundle = request.getfixturevalue(fixture)
    _, steered = opened(bundle, llama_folder)
    session, rng = rule_of(bundle), np.random.default_rng(seed)
    z0, hidden = some_logits(rng, steered.gate.M.shape[-1])
    controls = some_controls(rng)
    names = (value.name for value in session.get_inputs())
    inner = dict(zip(names, (z0[:, None], hidden[:, None]), strict=False))
    feed = feed_of(session, np.zeros((N_ROWS, 1), np.int64)) | controls | inner
    found = session.run(["logits", "risk", "safe_set_size"], feed)
    assert check(steered, z0, hidden, controls, tuple(value[:, 0] for value in found)) > N_ROWS // 50


@pytest.mark.parametrize("fixture", ["llama_bundle", "portable_bundle"])
@pytest.mark.prove
@ten_thousand
@given(seed=st.integers(0, 2**32 - 1))
def test_no_hostile_input_lifts_a_ceiling_of_a_bundle(
    request: pytest.FixtureRequest, llama_folder: Path, fixture: str, seed: int
) -> None:
    session, steered = opened(request.getfixturevalue(fixture), llama_folder)
    controls = some_controls(np.random.default_rng(seed))
    ids = np.broadcast_to(np.array([5, 6, 7 + seed % 90]), (N_ROWS, 3))
    found = session.run(["logits", "risk", "safe_set_size"], feed_of(session, ids) | controls)
    with torch.no_grad():
        hidden = steered.backbone.hidden(torch.from_numpy(ids[:1].copy()))
        z0 = steered.backbone.logits(hidden)
    rows = [np.repeat(value[:, -1].numpy(), N_ROWS, 0) for value in (z0, hidden)]
    n_open = check(steered, rows[0], rows[1], controls, tuple(value[:, -1] for value in found))
    assert n_open > N_ROWS // 10


@pytest.mark.parametrize("fixture", ["llama_bundle", "portable_bundle"])
def test_an_optional_input_left_out_is_its_default(
    request: pytest.FixtureRequest, llama_folder: Path, fixture: str
) -> None:
    session, steered = opened(request.getfixturevalue(fixture), llama_folder)
    feed = feed_of(session, np.array([[5, 6, 7], [8, 9, 10]]))
    defaults = {name: value.numpy() for name, value in steered.default_controls()._asdict().items()}
    expected = session.run(None, feed)
    for names in chain.from_iterable(combinations(CONTROLS, n) for n in range(1, len(CONTROLS) + 1)):
        for left, right in zip(
            session.run(None, feed | {name: defaults[name] for name in names}), expected, strict=True
        ):
            np.testing.assert_array_equal(left, right)
    assert not np.array_equal(session.run(None, feed | {"harm_threshold": np.full(1, 0.3, np.float32)})[0], expected[0])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("preference", (2,)),
        ("preference", (2, 3)),
        ("allowed", (2, 2)),
        ("allowed", (2, 4)),
        ("allowed", (3, 3)),
        ("allowed", (2, 3, 1)),
        ("harm_threshold", ()),
        ("harm_threshold", (2, 1)),
        ("harm_threshold", (3,)),
        ("reward_scale", (2, 200)),
    ],
)
def test_an_input_of_another_shape_is_refused(llama_bundle: Path, llama_folder: Path, name: str, shape: Any) -> None:
    session, _ = opened(llama_bundle, llama_folder)
    feed = feed_of(session, np.array([[5, 6, 7], [8, 9, 10]])) | {name: np.full(shape, 0.5, np.float32)}
    with pytest.raises(Exception, match=r"invalid|Invalid|broadcast|dimension"):  # onnxruntime's have no common base
        session.run(["logits"], feed)


@functools.cache
def cached_steered(pico: Any) -> SteeredModel:
    steered: SteeredModel = pico.steered()
    return steered


@functools.cache
def rule_of(bundle: Path) -> Any:
    """Session of what a bundle's graph does with logits and hidden states, its first two inputs."""
    graph = onnx.load(bundle / "model.onnx", load_external_data=False).graph
    nodes = graph.node
    at_top = next(at for at, node in enumerate(nodes) if node.op_type == "TopK")
    seen = list(dict.fromkeys(node.input[0] for node in nodes[:at_top] if node.op_type == "IsNaN"))
    z0, hidden = seen  # in the rule's first lines
    place = bundle.parent / f"{bundle.name}-rule.onnx"
    names = list(dict.fromkeys([z0, hidden, *(value.name for value in graph.input), *CONTROLS]))
    outputs = ["logits", "risk", "safe_set_size"]
    onnx.utils.extract_model(str(bundle / "model.onnx"), str(place), names, outputs, check_model=False)
    return onnxruntime.InferenceSession(str(place), providers=["CPUExecutionProvider"])


_opened: dict[Path, tuple[Any, SteeredModel]] = {}


def opened(bundle: Path, folder: Path) -> tuple[Any, SteeredModel]:
    """ONNX Runtime's own session of a bundle, and the steered model it was made from."""
    if bundle not in _opened:
        _opened[bundle] = Bundle.open(bundle, threads=1).session.session, SteeredModel.open(folder)
    return _opened[bundle]


def feed_of(session: Any, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The inputs that have no default: a prompt without a past."""
    past = [value.name for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        **dict.fromkeys(past, np.zeros((len(ids), 2, 0, 8), np.float32)),
    }
