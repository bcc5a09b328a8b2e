"""CoSAlign's training stages: supervised fine-tuning on the chosen replies, then DPO on the pairs."""

from prosocial.training.tuning.settings import dtype_to_tune_in

from ..workflow.stage import Source, Stage, StageContext, Upstream
from .schema import CosalignRecipe


def tuning_stages(recipe: CosalignRecipe, base: Source) -> list[Stage]:
    """Return the stages sft and dpo."""
    preferences, dtype = Upstream("preferences"), dtype_to_tune_in(recipe.dtype)
    return [
        Stage(
            name="sft",
            title="tune on the chosen replies",
            run=_tune,
            inputs={"base": base, "preferences": preferences},
            parameters={"method": "sft", "tuning": recipe.sft.model_dump(mode="json"), "dtype": dtype},
            seed=recipe.seed,
        ),
        Stage(
            name="dpo",
            title="tune on the pairs (DPO)",
            run=_tune,
            inputs={"base": Upstream("sft"), "preferences": preferences},
            parameters={"method": "dpo", "tuning": recipe.dpo.model_dump(mode="json"), "dtype": dtype},
            seed=recipe.seed,
        ),
    ]


def _tune(context: StageContext) -> str:
    from .tuning import ROWS, SETTINGS, tune_rows

    method = context.parameters["method"]
    return tune_rows(
        context.inputs["base"],
        context.inputs["preferences"] / ROWS[method],
        out=context.out,
        tuning=SETTINGS[method](**context.parameters["tuning"]),
        seed=context.seed,
        scratch=context.scratch / "checkpoints",
        placement=context.placement,
        on_start=lambda n_steps: context.progress.start(n_steps, f"tune ({method})"),
        on_step=context.progress.advance,
    )
