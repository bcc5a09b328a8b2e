"""The gate's threshold: the largest that shows the leak rate that the recipe asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.files import read_json, write_json

from ..labelling.judges import judge_inputs
from ..workflow.stage import Stage, StageContext, Upstream
from .schema import Recipe
from .sources import data_file

THRESHOLD_FILE = "calibration.json"
SCHEMA = "prosocial.threshold/2"


def threshold_stage(recipe: Recipe) -> Stage:
    """Return the stage threshold."""
    return Stage(
        name="threshold",
        title="choose the gate's threshold",
        run=_choose,
        inputs={"edited": Upstream("edit"), "gate": Upstream("gate"), "head": Upstream("head")}
        | {"calibration": data_file(recipe.data, "calibration"), **judge_inputs([recipe.judge])},
        parameters=recipe.calibration.model_dump(mode="json")
        | {"categories": list(recipe.categories), "attributes": list(recipe.attributes)}
        | {"decoding": recipe.decoding.model_dump(mode="json"), "judge": recipe.judge}
        | {"temperature": recipe.verify.temperature},
        seed=recipe.seed,
    )


def _choose(context: StageContext) -> str:
    from prosocial.evaluation.gate.threshold import unjudged_leaks
    from prosocial.training.gate.calibration import GateCalibration

    calibration = GateCalibration(**{key: context.parameters[key] for key in GateCalibration.model_fields})
    if calibration.threshold is not None:
        found: dict[str, Any] = {"harm_threshold": calibration.threshold, "tests": [], "success": None}
        told = "given"
    else:
        found = _test_candidates(context, calibration)
        last = next(test for test in found["tests"] if test["threshold"] == found["harm_threshold"])
        told = f"{last['n_leaks']} of {last['n']} leak{unjudged_leaks(last['n_unjudged'])}, "
        told += f"at most {100 * last['upper']:.2g} % ({calibration.confidence:.0%})"
        told += "" if found["success"] is None else f", {100 * found['success']:.1f} % done where harmless"
    found["threshold_ceiling"] = min(1.0, found["harm_threshold"] * calibration.ceiling_factor)
    rate = {"max_leak": calibration.max_leak, "confidence": calibration.confidence}
    write_json(context.out / THRESHOLD_FILE, {"schema": SCHEMA} | rate | found)
    return f"threshold {found['harm_threshold']:g}, {told}"


def _test_candidates(context: StageContext, calibration: Any) -> dict[str, Any]:
    """Test the candidates on the harmful calibration prompts; what the chosen one costs is told by the others.

    A reply that could not be judged counts as a leak: the bound has to hold whatever it was.
    """
    from prosocial.evaluation.gate.threshold import choose_threshold
    from prosocial.evaluation.probes.probe import read_probes

    probes = read_probes(context.inputs["calibration"])
    configs = context.parameters["decoding"]["safety_configs"] if calibration.under_configs else {}
    harmful = _asked([probe for probe in probes if probe.kind == "harmful"], configs)
    harmless = _asked([probe for probe in probes if probe.kind != "harmful"], configs)
    judged_at = _judged_replies(context)

    def count_leaks(threshold: float, most: int) -> tuple[int, int, int]:
        leaks: list[bool | None] = []
        for part in context.progress.track(_parts(harmful), f"{len(harmful)} harmful prompts at {threshold:g}"):
            found = judged_at(threshold, part)
            leaks += [judged.leak(asked.allowed) for judged, asked in zip(found, part, strict=True)]
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
    done = [found.success for found in judged_at(chosen, harmless) if found.success is not None]
    rows = [test.to_json() for test in tests]
    named = {"safety_configs": list(configs)} if configs else {}
    return {"harm_threshold": chosen, "tests": rows, "success": sum(done) / len(done) if done else None} | named


@dataclass(frozen=True)
class _Asked:
    """A prompt, and the safety config that it is asked under: its name, and what it allows."""

    probe: Any
    config: str | None = None
    allowed: frozenset[str] = frozenset()


def _asked(probes: Sequence[Any], configs: Mapping[str, Any]) -> list[_Asked]:
    """Return the prompts without a config and under each one in turn."""
    places = [(None, frozenset()), *((name, frozenset(config["allowed"])) for name, config in configs.items())]
    return [_Asked(probe, *places[number % len(places)]) for number, probe in enumerate(probes)]


def _judged_replies(context: StageContext) -> Callable[[float, Sequence[_Asked]], list[Any]]:
    """Return what draws and judges the steered model's replies to probes at a threshold."""
    from prosocial.evaluation.judges.requests import HarmRequest
    from prosocial.evaluation.outcomes.outcome import judge_reply
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.loop import generate

    from ..labelling.judges import judge_named
    from .engines import steered_engine
    from .models import BATCH_SIZE

    judge = judge_named(context.parameters["judge"], HarmRequest(context.parameters["categories"]))
    engine, tokenizer = steered_engine(context, harm_threshold=1.0)

    def judged_at(threshold: float, asked: Sequence[_Asked]) -> list[Any]:
        probes = [one.probe for one in asked]
        replies = generate(
            engine,
            tokenizer,
            [probe.messages for probe in probes],
            steering=[Steering(harm_threshold=threshold, safety_config=one.config) for one in asked],
            temperature=context.parameters["temperature"],
            seed=context.seed + 20,
            row_keys=[probe.id for probe in probes],
            batch_size=BATCH_SIZE,
        )
        return [judge_reply(judge, probe.messages, reply) for probe, reply in zip(probes, replies, strict=True)]

    return judged_at


def _parts(probes: Sequence[Any], size: int = 512) -> list[Sequence[Any]]:
    return [probes[start : start + size] for start in range(0, len(probes), size)]


def read_threshold(folder: Path) -> dict[str, Any]:
    """Return what was chosen (`harm_threshold`, `threshold_ceiling`) and the tests that it rests on."""
    return read_json(folder / THRESHOLD_FILE, schema=SCHEMA)
