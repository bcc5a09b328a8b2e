"""The comparison of a bundle with its reference, prompt by prompt, under one or more steering settings."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prosocial.core.equal_lengths import equal_length_batches
from prosocial.core.errors import InputError

from .batches import rows_in_memory
from .divergence import Divergence, Ties, divergence, top_margin
from .engines import ParityEngine, ScoredReply, StepOutputs
from .gates import ParityGates
from .judging import GreedyComparison
from .measurement import Measurement
from .report import ParityReport

MOST_MARGINS = 300  # prompts whose margins are computed on both sides, which costs two more passes for each
UNJUDGED = Ties(0.0, 0.0)  # placeholder: the bands are known only once everything is measured
Prompts = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Setting:
    """The two engines to compare under one steering.

    Attributes:
        name: name of the steering, for the report.
        reference: engine that defines the expected outputs.
        bundle: engine under test.
        prompts: token ids by prompt id.
        max_new_tokens: maximum length of each reply, in tokens.
    """

    name: str
    reference: ParityEngine
    bundle: ParityEngine
    prompts: Prompts
    max_new_tokens: int


def measure_parity(
    reference: ParityEngine,
    bundle: ParityEngine,
    prompts: Prompts,
    *,
    gates: ParityGates | None = None,
    max_new_tokens: int = 32,
    on_progress: Callable[[int], None] = lambda n: None,
) -> ParityReport:
    """Compare two engines on prompts, teacher-forced on the reference's greedy replies and in free greedy decoding.

    Args:
        reference: engine that defines the expected outputs.
        bundle: engine under test.
        prompts: token ids by prompt id.
        gates: thresholds; None for the defaults for float32.
        max_new_tokens: maximum length of each reply, in tokens.
        on_progress: called with the number of prompts done, after each batch.

    Raises:
        InputError: as in `measure_setting`.
    """
    setting = Setting("default", reference, bundle, prompts, max_new_tokens)
    return measure_setting(setting, on_progress=on_progress).judge(gates or ParityGates())


def measure_setting(setting: Setting, *, on_progress: Callable[[int], None] = lambda n: None) -> Measurement:
    """Compare two engines under one steering.

    Prompts are processed in batches of equal length and each batch is summarised before the next, so memory does not
    grow with their number. Margins are computed for up to 300 evenly spread prompts, and elsewhere where a safe set
    differs.

    Raises:
        InputError: there is no prompt, `max_new_tokens` is below 1, or the outputs of the engines differ in shape.
    """
    prompts = setting.prompts
    if not prompts:
        raise InputError("parity should be measured on at least one prompt, found none: give probes")
    if setting.max_new_tokens < 1:
        raise InputError(f"max_new_tokens should be at least 1, found {setting.max_new_tokens}")
    results: dict[str, _PromptResult] = {}
    with_margins = set(list(prompts)[:: -(-len(prompts) // MOST_MARGINS)])
    for batch in _batches(setting):
        results |= _compare(setting, batch, with_margins)
        on_progress(len(results))
    parts = {name: results[name] for name in prompts}
    return Measurement(
        setting.reference.name,
        setting.bundle.name,
        {name: part.divergence for name, part in parts.items()},
        tuple(part.greedy for part in parts.values()),
        sum(part.sizes_differ for part in parts.values()),
        settings=dict.fromkeys(prompts, setting.name),
    )


def join(measurements: Sequence[Measurement]) -> Measurement:
    """Join measurements of several settings; prompts of all but the first are renamed `prompt [setting]`."""
    first, *others = measurements
    divergences, settings = dict(first.divergences), dict(first.settings)
    greedy, n = list(first.greedy), first.sizes_differ
    for other in others:
        names = {name: f"{name} [{other.settings[name]}]" for name in other.divergences}
        divergences |= {names[name]: each for name, each in other.divergences.items()}
        settings |= {names[name]: other.settings[name] for name in names}
        greedy += [replace(one, prompt_id=names[one.prompt_id]) for one in other.greedy]
        n += other.sizes_differ
    return replace(first, divergences=divergences, settings=settings, greedy=tuple(greedy), sizes_differ=n)


@dataclass(frozen=True)
class _PromptResult:
    """The comparison on one prompt."""

    divergence: Divergence
    greedy: GreedyComparison
    sizes_differ: int


def _batches(setting: Setting) -> list[dict[str, Sequence[int]]]:
    """Split the prompts by length, so that the decisions of a batch fit into memory."""
    names, ids, most = list(setting.prompts), list(setting.prompts.values()), setting.max_new_tokens
    vocabulary_size = setting.reference.score(ids[0], []).logits.shape[1]
    # A long prompt takes memory as well: its tokens count like decisions.
    batches = equal_length_batches(map(len, ids), lambda length: rows_in_memory(max(length, most), vocabulary_size))
    return [{names[index]: ids[index] for index in batch} for batch in batches]


def _compare(setting: Setting, prompts: Prompts, with_margins: Container[str]) -> dict[str, _PromptResult]:
    """Compare the replies to some prompts; the bundle scores the reference's reply only where its own differs."""
    ids = list(prompts.values())
    expected = setting.reference.replies(ids, max_new_tokens=setting.max_new_tokens)
    actual = setting.bundle.replies(ids, max_new_tokens=setting.max_new_tokens)
    results: dict[str, _PromptResult] = {}
    for (name, prompt), left, right in zip(prompts.items(), expected, actual, strict=True):
        forced = right.outputs if left.tokens == right.tokens else setting.bundle.score(prompt, left.tokens[:-1])
        results[name] = _prompt_result(name, left, right, forced, always_margins=name in with_margins)
    return results


def _prompt_result(
    name: str, left: ScoredReply, right: ScoredReply, forced: StepOutputs, *, always_margins: bool
) -> _PromptResult:
    _check_shapes(name, left.outputs, forced)
    return _PromptResult(
        divergence(left.outputs, forced, ties=UNJUDGED, always_margins=always_margins),
        _greedy_comparison(name, left.tokens, right.tokens, left.outputs),
        int((left.outputs.safe_set_size != forced.safe_set_size).sum()),
    )


def _check_shapes(name: str, left: StepOutputs, right: StepOutputs) -> None:
    for part in ("logits", "risk", "safe_set_size"):
        expected, actual = getattr(left, part).shape, getattr(right, part).shape
        if expected != actual:
            raise InputError(
                f"both engines should give {part} of one shape on prompt {name!r}: the reference gives {expected}, the "
                f"bundle {actual}; give the reference that the bundle was exported from"
            )


def _greedy_comparison(name: str, reply: list[int], other: list[int], scored: StepOutputs) -> GreedyComparison:
    """Compare two replies; at the first difference, the reference's logits apply to both: all earlier tokens agree."""
    if reply == other:
        return GreedyComparison(name)
    shared = min(len(reply), len(other))
    first = next((at for at in range(shared) if reply[at] != other[at]), shared)
    if first >= len(scored.logits):
        return GreedyComparison(name, first)
    return GreedyComparison(name, first, float(top_margin(scored.logits[first : first + 1])[0]))


def largest_difference(left: StepOutputs, right: StepOutputs) -> float:
    """Return the largest difference of a logit that both allow.

    It is infinite if they share no token at some position, or if one of them has a logit or risk that is NaN or
    infinite.
    """
    difference = divergence(replace(left, margins=None), replace(right, margins=None), ties=UNJUDGED)
    if difference.n_broken:
        return np.inf
    return float(np.where(np.isinf(difference.kl), np.inf, difference.logit).max())
