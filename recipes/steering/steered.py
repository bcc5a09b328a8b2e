"""The last stages: the steered model put together, its bundle, and the report on both."""

from ..workflow.stage import Stage, StageContext, Upstream
from .schema import DecodingSettings, Recipe


def export_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages steered and bundle."""
    return [
        Stage(
            name="steered",
            title="put the steered model together",
            run=_assemble,
            inputs={name: Upstream(name) for name in ("edit", "head", "gate", "threshold")},
            parameters=recipe.decoding.model_dump(mode="json")
            | {"attributes": list(recipe.attributes), "categories": list(recipe.categories)},
        ),
        Stage(
            name="bundle",
            title="export one ONNX graph",
            run=_export,
            inputs={"steered": Upstream("steered")},
            parameters=recipe.export.model_dump(mode="json"),
            needs=("onnx", "onnxscript", "onnxruntime"),
        ),
    ]


def _assemble(context: StageContext) -> str:
    from prosocial.evaluation.gate.threshold_choice import ThresholdChoice
    from prosocial.steering.steered_model import assemble_steered

    choice, names = ThresholdChoice.read(context.inputs["threshold"]), ("attributes", "categories")
    config = DecodingSettings(**{name: context.parameters[name] for name in DecodingSettings.model_fields}).config(
        **{name: context.parameters[name] for name in names},
        threshold=choice.harm_threshold,
        ceiling=choice.threshold_ceiling,
    )
    parts = {"checkpoint": context.inputs["edit"], "head": context.inputs["head"], "gate": context.inputs["gate"]}
    assemble_steered(**parts, config=config, threshold=choice, out=context.out)
    return (
        f"{len(config.attributes)} attributes, {len(config.categories)} categories, threshold {config.harm_threshold:g}"
    )


def _export(context: StageContext) -> str:
    from prosocial.export.bundling import export_bundle

    export_bundle(context.inputs["steered"], context.out, profile=context.parameters["profile"])
    size = sum(path.stat().st_size for path in context.out.iterdir())
    return f"profile {context.parameters['profile']}, {size / 1e6:.1f} MB"
