"""The gate's threshold: the largest that shows the leak rate that the recipe sets."""

from typing import TYPE_CHECKING

from prosocial.evaluation.judges.requests import HarmRequest
from prosocial.training.gate.calibration import GateCalibration

from ..labelling.judges import judge_inputs, judge_named
from ..workflow.stage import Stage, StageContext, Upstream
from .schema import DecodingSettings, Recipe
from .sources import data_file

if TYPE_CHECKING:
    from prosocial.evaluation.gate.threshold_choice import ThresholdChoice


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
        | {"temperature": recipe.verify.temperature, "dtype": "float32"},  # as the bundle computes
        seed=recipe.seed,
    )


def _choose(context: StageContext) -> str:
    from prosocial.evaluation.gate.threshold_choice import ThresholdChoice

    calibration = GateCalibration(**{name: context.parameters[name] for name in GateCalibration.model_fields})
    if calibration.threshold is None:
        choice = _calibrate(context, calibration)
    else:
        choice = ThresholdChoice.of(calibration.threshold, calibration)
    choice.write(context.out)
    return choice.summary


def _calibrate(context: StageContext, calibration: GateCalibration) -> "ThresholdChoice":
    from prosocial.core.chat import ChatTokenizer
    from prosocial.evaluation.gate.calibrating import calibrate_gate
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead
    from prosocial.steering.steered_model import SteeredModel

    from .models import open_model

    inputs, parameters, tokenizer = context.inputs, context.parameters, ChatTokenizer(context.inputs["edited"])
    names = {name: parameters[name] for name in ("attributes", "categories")}
    steered = SteeredModel(
        open_model(inputs["edited"], context.placement),
        CompactHead.load(inputs["head"]),
        HarmGate.load(inputs["gate"]),
        DecodingSettings(**parameters["decoding"]).config(**names, threshold=1.0, ceiling=1.0),
        end_ids=tokenizer.end_ids,
    )
    return calibrate_gate(
        steered,
        read_probes(inputs["calibration"]),
        tokenizer=tokenizer,
        judge=judge_named(parameters["judge"], HarmRequest(parameters["categories"])),
        calibration=calibration,
        temperature=parameters["temperature"],
        seed=context.seed,
        progress=context.progress,
    )
