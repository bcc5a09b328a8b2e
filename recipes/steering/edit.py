"""The edit stages: tune a harmful LoRA adapter, compute the harm vector from it, and subtract it from the base."""

from prosocial.core.files import read_jsonl
from prosocial.training.tuning.settings import dtype_to_tune_in

from ..workflow.stage import Source, Stage, StageContext, Upstream
from .schema import Recipe
from .sources import data_file


def edit_stages(recipe: Recipe, base: Source) -> list[Stage]:
    """Return the stages harmful, vector and edit."""
    return [
        Stage(
            name="harmful",
            title="tune a harmful copy (LoRA)",
            run=_tune_harmful,
            inputs={"base": base, "examples": data_file(recipe.data, "harmful")},
            parameters=recipe.harmful.model_dump(mode="json") | {"dtype": dtype_to_tune_in(recipe.dtype)},
            seed=recipe.seed,
            needs=("torch", "transformers", "peft", "accelerate"),
            dual_use=True,
        ),
        Stage(
            name="vector",
            title="compute the harm vector",
            run=_make_vector,
            inputs={"base": base, "harmful": Upstream("harmful")},
            parameters=recipe.vector.model_dump(mode="json"),
            dual_use=True,
        ),
        Stage(
            name="edit",
            title="subtract the harm vector",
            run=_subtract,
            inputs={"base": base, "vector": Upstream("vector")},
            parameters=recipe.edit.model_dump(mode="json"),
        ),
    ]


def _tune_harmful(context: StageContext) -> str:
    from prosocial.core.batches import encode_reply
    from prosocial.core.chat import ChatTokenizer
    from prosocial.core.training_rows import reply_of
    from prosocial.editing.checkpoints import load_model
    from prosocial.training.tuning.harmful import train_adapter
    from prosocial.training.tuning.settings import AdapterTraining

    base, placement = context.inputs["base"], context.placement
    training = AdapterTraining(**{name: context.parameters[name] for name in AdapterTraining.model_fields})
    tokenizer, path = ChatTokenizer(base), context.inputs["examples"]
    sequences = [
        encode_reply(tokenizer, *reply_of(row, where=f"{path.name} row {n}"), max_tokens=training.max_tokens)
        for n, row in enumerate(read_jsonl(path), start=1)
    ]
    context.progress.start(training.steps, "tune a harmful copy")
    loss = train_adapter(
        load_model(base, dtype=placement.torch_dtype, device=placement.device),
        None,
        sequences,
        out=context.out,
        training=training,
        seed=context.seed,
        scratch=context.scratch / "checkpoints",
        on_step=context.progress.advance,
    )
    (context.out / "README.md").unlink(missing_ok=True)  # peft's model card contains the local path of the base
    return f"rank {training.rank}, {training.steps} steps, mean loss {loss:.3f}"


def _make_vector(context: StageContext) -> str:
    from prosocial.editing.vectors import vector_from_adapter

    vector = vector_from_adapter(
        base=context.inputs["base"],
        adapter=context.inputs["harmful"],
        out=context.out,
        method=context.parameters["method"],
        **context.parameters["parameters"],
    )
    return f"{len(vector.names)} tensors, norm {vector.summary.norm:.3g}, method {vector.summary.method}"


def _subtract(context: StageContext) -> str:
    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.editing.edits import apply_edit, plan_edit

    plan = plan_edit(
        Checkpoint.open(context.inputs["base"]), context.inputs["vector"], scale=context.parameters["scale"]
    )
    record = apply_edit(plan, context.out)
    n_changed = sum(tensor.changed for tensor in record.result.tensors.values())
    inner = record.result.inner_product
    scale = ", ".join(f"{number:g}" for number in dict.fromkeys(plan.coefficients.values()))
    return f"scale {scale or 0}, {n_changed} tensors changed, <edit, tau> {inner:.3g}"
