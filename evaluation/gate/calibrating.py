"""Choosing the threshold of a steered model's gate on calibration probes, with a judge."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.progress import SILENT, Progress
from prosocial.core.protocols import Judge, Judgement
from prosocial.steering.configs.safety_config import SafetyConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.steered_model import SteeredModel
from prosocial.training.gate.calibration import GateCalibration

from ..judges.rehearsal import rehearse
from ..outcomes.outcome import judge_reply
from ..probes.probe import Probe
from .threshold import choose_threshold, require_prompts
from .threshold_choice import ThresholdChoice

BATCH_SIZE = 256  # replies at once; the results do not depend on it
PART = 512  # prompts between two looks at the number of leaks
DRAW_SEED = 20  # added to the seed of the calibration


@dataclass(frozen=True)
class PromptUnderConfig:
    """A probe, and the safety config that it is given: its name (None: no config), and the harms that it allows."""

    probe: Probe
    config: str | None = None
    allowed: frozenset[str] = frozenset()


def calibrate_gate(
    steered: SteeredModel,
    probes: Sequence[Probe],
    *,
    tokenizer: ChatTokenizer,
    judge: Judge,
    calibration: GateCalibration,
    temperature: float | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ThresholdChoice:
    """Choose the largest threshold whose leak rate on the harmful probes is shown to be low enough.

    A reply that could not be judged counts as a leak, so that the bound holds whatever it was. The harmless probes
    are answered at the chosen threshold, for the share that is done as asked.

    Args:
        steered: the model; its own threshold and ceiling have no effect here.
        probes: calibration probes, harmful and harmless ones, independent of those of any report.
        tokenizer: of the model. judge: judges the replies.
        calibration: candidates, leak rate and confidence.
        temperature: of the replies; None: that of the model's decoding config.
        seed: of the replies.
        progress: receives the number of harmful probes answered.

    Raises:
        InputError: there are too few harmful probes, no candidate holds the leak rate, a threshold is given, or the
            judge fails on a trial reply.
    """
    require_testable(probes, calibration)
    rehearse(judge, [probe.messages for probe in probes])
    configs = steered.config.safety_configs if calibration.under_configs else {}
    harmful = under_configs([probe for probe in probes if probe.kind == "harmful"], configs)
    harmless = under_configs([probe for probe in probes if probe.kind != "harmful"], configs)
    judged_at = _judged_replies(_without_ceiling(steered), tokenizer, judge, temperature, seed)

    def count_leaks(threshold: float, most: int) -> tuple[int, int, int]:
        leaks: list[bool | None] = []
        for part in progress.track(_parts(harmful), f"{len(harmful)} harmful prompts at {threshold:g}"):
            judgements = judged_at(threshold, part)
            leaks += [judged.leak(given.allowed) for judged, given in zip(judgements, part, strict=True)]
            if len(leaks) - leaks.count(False) > most:
                break
        return len(leaks) - leaks.count(False), len(leaks), leaks.count(None)

    chosen, tests = choose_threshold(
        calibration.candidates,
        count_leaks,
        n_prompts=len(harmful),
        max_leak=calibration.max_leak,
        confidence=calibration.confidence,
    )
    done = [judged.success for judged in judged_at(chosen, harmless) if judged.success is not None]
    success = sum(done) / len(done) if done else None
    return ThresholdChoice.of(chosen, calibration, tests=tests, success=success, safety_configs=list(configs))


def require_testable(probes: Iterable[Probe], calibration: GateCalibration) -> None:
    """Raise InputError where no threshold can be chosen with these probes and settings; it needs no model."""
    if calibration.threshold is not None:
        raise InputError(
            f"the threshold is given as {calibration.threshold:g}, so that there is none to choose: leave it out, or "
            "assemble the steered model with it"
        )
    n_harmful = sum(probe.kind == "harmful" for probe in probes)
    require_prompts(n_harmful, max_leak=calibration.max_leak, confidence=calibration.confidence)


def under_configs(probes: Iterable[Probe], configs: Mapping[str, SafetyConfig]) -> list[PromptUnderConfig]:
    """Return the probes without a config and under each one in turn."""
    places = [(None, frozenset[str]()), *((name, frozenset(config.allowed)) for name, config in configs.items())]
    return [PromptUnderConfig(probe, *places[number % len(places)]) for number, probe in enumerate(probes)]


def _without_ceiling(steered: SteeredModel) -> SteeredModel:
    """Return the same model with a ceiling of 1, so that every candidate can be tested."""
    config = steered.config.model_copy(update={"threshold_ceiling": 1.0})
    return SteeredModel(steered.backbone.model, steered.head, steered.require_gate(), config, end_ids=steered.end_ids)


def _judged_replies(
    steered: SteeredModel, tokenizer: ChatTokenizer, judge: Judge, temperature: float | None, seed: int
) -> Callable[[float, Sequence[PromptUnderConfig]], list[Judgement]]:
    """Return a function that draws and judges replies to prompts at a threshold."""

    def judged_at(threshold: float, prompts: Sequence[PromptUnderConfig]) -> list[Judgement]:
        probes = [prompt.probe for prompt in prompts]
        replies = steered.generate(
            [probe.messages for probe in probes],
            tokenizer,
            steering=[Steering(harm_threshold=threshold, safety_config=prompt.config) for prompt in prompts],
            temperature=temperature,
            seed=seed + DRAW_SEED,
            row_keys=[probe.id for probe in probes],
            batch_size=BATCH_SIZE,
        )
        return [judge_reply(judge, probe.messages, reply) for probe, reply in zip(probes, replies, strict=True)]

    return judged_at


def _parts(prompts: Sequence[PromptUnderConfig]) -> list[Sequence[PromptUnderConfig]]:
    return [prompts[start : start + PART] for start in range(0, len(prompts), PART)]
