"""The check after tracing: the graph in ONNX Runtime against the torch model, in prefill and decoding steps."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from prosocial.core.errors import InputError, ProsocialError
from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays
from prosocial.steering.lexicographic import Controls, admissible, as_controls, candidate_risk, disallowed_risk
from prosocial.steering.plausible import plausible
from prosocial.steering.steered_model import SteeredModel

from ..runtime.session import GraphSession
from .wrapper import PlainGraph, SteeredGraph

TOLERANCE = 1e-3
N_DECODE = 3
PROMPT_TOKENS = 12
BEYOND_WINDOW = 8  # tokens of the long prompt that the first token's window no longer covers
MOST_LOGITS = 1 << 24  # 64 MiB of float32: if a prompt has more, only those of its last positions are compared


@dataclass(frozen=True)
class Agreement:
    """The differences between the graph and torch on random tokens.

    Attributes:
        n_positions: number of positions compared.
        max_logit_difference: largest absolute difference of logits.
        max_risk_difference: largest absolute difference of risks.
        n_near_ties: number of tokens that only one side admits, all within the tolerance of a decision boundary.
        crosses_window: whether a prompt was longer than the sliding window; True if there is no window, False if the
            context has no room for such a prompt.
    """

    n_positions: int
    max_logit_difference: float
    max_risk_difference: float
    n_near_ties: int
    crosses_window: bool

    def as_json(self) -> dict[str, object]:
        """Return the content of `parity.json`."""
        return {"schema": "prosocial.parity/1", "kind": "trace", "tolerance": TOLERANCE, **asdict(self)}


@torch.no_grad()
def check_agreement(path: Path, graph: PlainGraph | SteeredGraph) -> Agreement:
    """Compare `model.onnx` at `path` with the wrapper's torch model on random tokens.

    It runs batches of 1 and 3 rows, each with a prefill and three decoding steps, with default controls and with
    different controls per row. The prompt of the single row is longer than the sliding window. Both sides compute the
    logits of the last positions only (`logits_to_keep`) where all would be more than 64 MiB: memory then depends on the
    vocabulary, not on the window.

    Args:
        path: path of `model.onnx`.
        graph: the wrapper that was traced.

    Raises:
        ProsocialError: a logit or risk differs by more than 1e-3, or a decision differs that is not a near tie.
        InputError: the model's logits are infinite or NaN.
        MissingExtraError: onnxruntime is not installed.
    """
    session = GraphSession(path, shares_cache=graph.body.profile == "ort")
    worst, risk, ties, n_positions = 0.0, 0.0, 0, 0
    for n_rows, n_prompt in ((1, _long_prompt(graph)), (3, _fitting(graph, PROMPT_TOKENS))):
        for controls in _control_choices(graph, n_rows):
            for actual, expected, near in _passes(session, graph, (n_rows, n_prompt), controls):
                step = _compare(actual, expected, near)
                worst, risk, ties = max(worst, step[0]), max(risk, step[1]), ties + step[2]
                n_positions += actual["logits"].shape[0] * actual["logits"].shape[1]
    if not (worst <= TOLERANCE and risk <= TOLERANCE):
        raise ProsocialError(
            f"the graph should agree with torch within {TOLERANCE}, the largest differences are {worst:.3g} in logits "
            f"and {risk:.3g} in risk: profile {graph.body.profile!r} does not support this model, try the other one"
        )
    return Agreement(n_positions, worst, risk, ties, _long_prompt(graph) > _window(graph))


def _control_choices(graph: PlainGraph | SteeredGraph, n_rows: int) -> list[ControlArrays | None]:
    if not isinstance(graph, SteeredGraph):
        return [None]
    config = graph.steered.config
    names = [name for name, is_open in zip(config.categories, config.ceiling_mask(), strict=True) if is_open]
    others = [
        Steering(
            preference={config.attributes[row % len(config.attributes)]: 1.0},
            allowed=names[: row % 2],
            harm_threshold=config.threshold_ceiling,
            reward_scale=float(row + 1),
        )
        for row in range(n_rows)
    ]
    return [None, control_arrays(config, others)]


Outputs = dict[str, NDArray[Any]]
NearTies = Callable[[int, int, NDArray[np.intp]], NDArray[np.bool_]]  # of tokens [N] at one row and position
Pass = tuple[Outputs, Outputs, NearTies]


def _passes(
    session: GraphSession,
    graph: PlainGraph | SteeredGraph,
    shape: tuple[int, int],
    controls: ControlArrays | None,
) -> Iterator[Pass]:
    """Yield both sides' outputs, and a function for the near ties, for a prefill [B, S] and each decoding step.

    Of a prefill, the outputs are those of the last positions.
    """
    backbone, (n_rows, n_prompt) = graph.body.backbone, shape
    size = backbone.output_weight.shape[0]
    ids = torch.randint(size, (n_rows, n_prompt + N_DECODE), generator=torch.Generator().manual_seed(0))
    buffers, cache, n_past = session.new_cache(n_rows, ids.shape[1]), DynamicCache(), 0
    most = max(MOST_LOGITS // (n_rows * size), BEYOND_WINDOW)
    for n_new in (n_prompt, *[1] * N_DECODE):
        new = ids[:, n_past : n_past + n_new]
        actual, buffers = session.run(new.numpy(), n_past, buffers, controls, 0 if n_new <= most else most)
        positions = torch.arange(n_past, n_past + n_new).expand(n_rows, -1)
        hidden = backbone.hidden(new, position_ids=positions, past_key_values=cache)
        yield actual, *_expected(graph, hidden[:, -most:], controls)
        n_past += n_new


def _expected(
    graph: PlainGraph | SteeredGraph, hidden: Tensor, controls: ControlArrays | None
) -> tuple[Outputs, NearTies]:
    z0 = graph.body.backbone.logits(hidden)
    n_broken = int((~z0.isfinite()).sum())
    if n_broken:
        raise InputError(
            f"{type(graph.body.backbone.model).__name__} should give finite logits on random tokens, {n_broken} of "
            f"{z0.numel()} are infinite or NaN: its activations overflow float32, look for a broken weight or edit"
        )
    if not isinstance(graph, SteeredGraph):
        return {"logits": z0.numpy()}, lambda row, at, tokens: np.zeros(tokens.shape, bool)
    steered = graph.steered
    given = steered.default_controls() if controls is None else as_controls(controls)
    outputs = {name: value.numpy() for name, value in steered.rule(z0, hidden, given)._asdict().items()}

    def near(row: int, at: int, tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        own = Controls(*(value[row % len(value), None] for value in given))
        chosen = torch.from_numpy(tokens)
        return near_ties(steered, z0[row, at], hidden[row, at], own, chosen, tolerance=TOLERANCE).numpy()

    return outputs, near


def near_ties(
    steered: SteeredModel, z0: Tensor, hidden: Tensor, controls: Controls, tokens: Tensor, *, tolerance: float
) -> Tensor:
    """Return [N], True for tokens whose decision at one position is a near tie.

    Their logit is within `tolerance` of the K-th highest, or their risk within `tolerance` of the threshold, so that
    two correct implementations may decide differently.

    Args:
        steered: the steered model.
        z0: [V], logits without the rule.
        hidden: [H], last hidden state.
        controls: the controls of this row, each with a leading axis of 1.
        tokens: [N], ids of the tokens.
        tolerance: the largest distance from a boundary.
    """
    ceilings = steered.ceilings
    bound = admissible(controls, ceilings)
    risk = candidate_risk(steered.require_gate(), hidden[None, None], tokens[None, None])  # [1, 1, N, C]
    is_near = (disallowed_risk(risk, bound.allowed)[0, 0] - bound.harm_threshold).abs() <= tolerance
    if ceilings.plausible_k < len(z0):
        inside, outside = plausible(z0, ceilings.plausible_k + 1)[0][-2:]
        own = z0[tokens]
        is_near |= torch.where(own >= inside, own - outside <= tolerance, inside - own <= tolerance)
    return is_near


def _compare(actual: Outputs, expected: Outputs, near: NearTies) -> tuple[float, float, int]:
    """Return the largest difference of logits and of risk, and the number of near ties decided differently."""
    ours, theirs = actual["logits"], expected["logits"]
    in_ours, in_theirs = np.isfinite(ours), np.isfinite(theirs)
    differs = (in_ours != in_theirs) | np.isnan(ours)
    places = np.argwhere(differs.any(-1))
    n_wrong = sum(int((~near(row, at, np.flatnonzero(differs[row, at]))).sum()) for row, at in places)
    if n_wrong:
        raise ProsocialError(
            f"the graph should admit the same tokens as torch, {n_wrong} decisions differ and are not near ties: "
            "this profile does not support the model, try the other one"
        )
    both = in_ours & in_theirs
    logits = float(np.abs(ours[both] - theirs[both]).max(initial=0.0))
    risk = float(np.abs(actual["risk"] - expected["risk"]).max(initial=0.0)) if "risk" in expected else 0.0
    return logits, np.inf if np.isnan(risk) else risk, int(differs.sum())


def _long_prompt(graph: PlainGraph | SteeredGraph) -> int:
    """Return the length of a prompt longer than the sliding window, or as long as the context allows."""
    return _fitting(graph, max(PROMPT_TOKENS, _window(graph) + BEYOND_WINDOW))


def _fitting(graph: PlainGraph | SteeredGraph, n_tokens: int) -> int:
    longest = graph.body.backbone.context_length
    return n_tokens if longest is None else min(n_tokens, longest - N_DECODE)


def _window(graph: PlainGraph | SteeredGraph) -> int:
    """Return the size of the sliding window, 0 if there is none shorter than the context."""
    backbone = graph.body.backbone
    window: int = getattr(backbone.model.config.get_text_config(), "sliding_window", None) or 0
    return 0 if backbone.context_length is not None and window >= backbone.context_length else window
