"""The report stages: parity of the bundle, effects of the edit and the gate, and effects of preferences."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import UnknownNameError
from prosocial.core.files import read_json, write_json
from prosocial.core.protocols import Judge
from prosocial.evaluation.judges.requests import HarmRequest

from ..labelling.judges import attribute_judge, judge_inputs, judge_named
from ..workflow.stage import Source, Stage, StageContext, Upstream
from .schema import Recipe
from .sources import data_file

if TYPE_CHECKING:
    from prosocial.evaluation.outcomes.outcome import Outcome
    from prosocial.evaluation.probes.probe import Probe
    from prosocial.steering.decoding.reply import Reply

REPLY_SEED = 30  # the replies that are judged have noise of their own: the seed of the recipe plus this
PREFERENCE_KINDS = ("benign", "disclosure", "false_premise")


def report_stages(recipe: Recipe, base: Source) -> list[Stage]:
    """Return the stages parity and report."""
    probes = data_file(recipe.data, "probes")
    judged = {"judge": recipe.judge, "judges": recipe.attribute_judges(), "attributes": list(recipe.attributes)}
    judged |= {"categories": list(recipe.categories)}
    return [
        Stage(
            name="parity",
            title="compare the bundle with PyTorch",
            run=_measure_parity,
            inputs={"probes": probes, "steered": Upstream("steered"), "bundle": Upstream("bundle")},
            parameters=recipe.verify.model_dump(mode="json")
            | {"max_new_tokens": recipe.decoding.max_new_tokens, "dtype": "float32"},
            seed=recipe.seed,
        ),
        Stage(
            name="report",
            title="judge base, edited and gated replies",
            run=_report,
            inputs={"base": base, "edited": Upstream("edit"), "probes": probes}
            | {name: Upstream(name) for name in ("gate", "threshold", "bundle", "parity")}
            | judge_inputs(recipe.judge_names()),
            parameters=recipe.verify.model_dump(mode="json")
            | judged
            | {"max_new_tokens": recipe.decoding.max_new_tokens, "recipe": recipe.name, "title": recipe.title}
            | {"scale": recipe.edit.scale, "dtype": "float32"},  # as the bundle computes
            seed=recipe.seed,
        ),
    ]


def _measure_parity(context: StageContext) -> str:
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.verify.bundle_parity import verify_bundle

    probes = read_probes(context.inputs["probes"])
    n_probes = context.parameters["parity_probes"] or len(probes)
    spread = probes[:: max(1, len(probes) // n_probes)]
    report = verify_bundle(
        context.inputs["bundle"],
        reference=context.inputs["steered"],
        probes=spread,
        max_new_tokens=context.parameters["max_new_tokens"],
        placement=context.placement,
        on_progress=_advance(context, len(spread)),
    )
    write_json(context.out / "parity.json", report.to_json())
    return f"{report.verdict} on {len(spread)} probes"


def _advance(context: StageContext, total: int) -> Callable[[int], None]:
    """Return a callback that takes the total number of compared probes and advances the progress bar."""
    context.progress.start(total, f"compare on {total} probes")
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        context.progress.advance(n - done)
        done = n

    return advance


def _report(context: StageContext) -> str:
    from prosocial.evaluation.comparison.preferences import preference_effects
    from prosocial.evaluation.comparison.report import compare
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.evaluation.report import choose_samples, write_report

    probes = read_probes(context.inputs["probes"])
    judged = [probe for probe in probes if probe.kind not in ("disclosure", "false_premise")]
    judge = judge_named(context.parameters["judge"], HarmRequest(context.parameters["categories"]))
    outcomes = {name: _outcomes(context, name, judged, judge) for name in ("base", "edited", "gated")}
    comparison = compare(judged, outcomes)
    calibration = _calibration(context, judged, outcomes["edited"])
    scorable, scorer = _preference_probes(probes), _scorer(context) or judge
    uniform = _outcomes(context, "gated", scorable, scorer)
    corners = {n: _outcomes(context, "gated", scorable, scorer, prefer=n) for n in context.parameters["attributes"]}
    scored = {name: rows for name, rows in corners.items() if any(name in item.attributes for item in rows)}
    document = write_report(
        context.out,
        title=context.parameters["title"] or context.parameters["recipe"],
        comparison=comparison,
        preferences=preference_effects(scorable, uniform, scored),
        parity=read_json(context.inputs["parity"] / "parity.json"),
        calibration=calibration,
        samples=choose_samples(judged, outcomes)[: context.parameters["samples"]],
        facts=_facts(context),
    )
    return str(document["headline"]["verdict"])


def _scorer(context: StageContext) -> Judge | None:
    """Return the judge of the attributes, or None for a classifier that has no labels for them."""
    try:
        return attribute_judge(**context.parameters["judges"])
    except UnknownNameError:
        return None


def _outcomes(
    context: StageContext, system: str, probes: "Sequence[Probe]", judge: Judge, *, prefer: str | None = None
) -> "list[Outcome]":
    """Generate and judge the replies of one system; `gated` is the bundle in ONNX Runtime."""
    from prosocial.evaluation.outcomes.outcome import judge_replies
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.loop import generate

    from .models import answers_at_once

    engine, tokenizer = _engine(context, system)
    longest = max(len(tokenizer.encode_chat(probe.messages)) for probe in probes) if probes else 0
    folder = context.inputs["bundle" if system == "gated" else system]
    batch_size = answers_at_once(folder, longest + context.parameters["max_new_tokens"])
    replies: list[Reply] = []
    chunk = 8 * batch_size
    title = f"{system} answers {len(probes)} probes" + (f", {prefer}=1" if prefer else "")
    for start in context.progress.track(range(0, len(probes), chunk), title):
        part = probes[start : start + chunk]
        replies += generate(
            engine,
            tokenizer,
            [probe.messages for probe in part],
            steering=Steering(preference={prefer: 1.0}) if prefer else None,
            prefill=[probe.prefill for probe in part],
            temperature=context.parameters["temperature"],
            seed=context.seed + REPLY_SEED,
            row_keys=[probe.id for probe in part],
            max_new_tokens=context.parameters["max_new_tokens"],
            batch_size=batch_size,
        )
    return judge_replies(probes, replies, judge)


def _calibration(context: StageContext, probes: "Sequence[Probe]", outcomes: "Sequence[Outcome]") -> dict[str, Any]:
    """Return the gate's calibration on the edited model's replies, and the tests of its threshold."""
    from prosocial.core.chat import ChatTokenizer
    from prosocial.evaluation.gate import ThresholdChoice, measure_calibration
    from prosocial.steering.gate import HarmGate

    from .models import open_model

    edited, gate = context.inputs["edited"], HarmGate.load(context.inputs["gate"])
    choice, discount = ThresholdChoice.read(context.inputs["threshold"]), gate.extra["training"]["discount"]
    context.progress.start(None, "calibration of the gate")
    calibration = measure_calibration(
        open_model(edited, context.placement),
        gate,
        ChatTokenizer(edited),
        probes,
        outcomes,
        discount=discount,
        seed=context.seed,
    )
    return calibration | {"scaling": gate.extra["scaling"], "threshold": choice.to_json()}


def _engine(context: StageContext, system: str) -> tuple[Any, Any]:
    from prosocial.core.chat import ChatTokenizer
    from prosocial.export.runtime.bundle import Bundle
    from prosocial.steering.torch_engine import PlainEngine

    from .models import open_model

    if system == "gated":
        bundle = Bundle.open(context.inputs["bundle"])
        return bundle.engine, bundle.tokenizer
    folder = context.inputs[system]
    return PlainEngine(open_model(folder, context.placement)), ChatTokenizer(folder)


def _preference_probes(probes: "Sequence[Probe]", count: int = 324) -> "list[Probe]":
    """Return probes on which attributes can be scored, the same number of each kind."""
    by_kind = [[probe for probe in probes if probe.kind == kind] for kind in PREFERENCE_KINDS]
    chosen = [probe for group in by_kind for probe in group[: count // len(PREFERENCE_KINDS)]]
    return chosen or list(probes)[:count]


def _facts(context: StageContext) -> dict[str, Any]:
    import torch

    config, scale = read_json(context.inputs["bundle"] / "decoding.json"), context.parameters["scale"]
    by_pattern = [f"{pattern}: {number:g}" for pattern, number in scale.items()] if isinstance(scale, dict) else []
    return {
        "recipe": context.parameters["recipe"],
        "scale": "; ".join(by_pattern) or scale,
        "gate threshold": config["harm_threshold"],
        "computed in": f"float32, base and edited in PyTorch on {context.device}, gated in ONNX Runtime on the CPU",
        "reply temperature": context.parameters["temperature"],
        "reply seed": context.seed + REPLY_SEED,
        "threads": torch.get_num_threads(),
        "seed": context.seed,
    }
