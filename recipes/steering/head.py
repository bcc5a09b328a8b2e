"""The compact head, distilled from the reward model on the pairs' replies and on replies of its own."""

from ..workflow.stage import Stage, StageContext, Upstream
from .schema import Recipe


def head_stage(recipe: Recipe) -> Stage:
    """Return the stage head."""
    return Stage(
        name="head",
        title="distil the compact head",
        run=_distil,
        inputs={"edited": Upstream("edit"), "pairs": Upstream("pairs"), "reward": Upstream("reward")},
        parameters={"attributes": list(recipe.attributes), "dtype": recipe.dtype}
        | recipe.head.model_dump(mode="json")
        | {"plausible_k": recipe.decoding.plausible_k, "inverse_beta": 1 / recipe.decoding.beta}
        | recipe.pairs.model_dump(mode="json", include={"temperature", "max_new_tokens"}),
        seed=recipe.seed,
    )


def _distil(context: StageContext) -> str:
    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.head.from_reward import distil
    from prosocial.training.head.settings import DistilTraining
    from prosocial.training.reply_sampling import ReplySampling
    from prosocial.training.reward.model import RewardModel
    from prosocial.training.reward.pairs import read_pairs

    from .models import open_model

    parameters, edited = context.parameters, context.inputs["edited"]
    digest, model = fingerprint(edited), open_model(edited, context.placement)
    distilled = distil(
        RewardModel.load(context.inputs["reward"], model, checkpoint_fingerprint=digest),
        read_pairs(context.inputs["pairs"] / "pairs.jsonl", attributes=parameters["attributes"]),
        tokenizer=ChatTokenizer(edited),
        training=DistilTraining(**{name: parameters[name] for name in DistilTraining.model_fields}),
        sampling=ReplySampling(**{name: parameters[name] for name in ReplySampling.model_fields}),
        seed=context.seed,
        scratch=context.scratch,
        progress=context.progress,
    )
    distilled.save(context.out, checkpoint_fingerprint=digest)
    return distilled.summary
