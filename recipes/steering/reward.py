"""The reward stages: label preference pairs and train the reward model on them."""

from prosocial.core.errors import InputError

from ..labelling.judges import judge_inputs
from ..workflow.stage import Stage, StageContext, Upstream
from .schema import FileData, Recipe, RewardSettings
from .sources import data_file

# Packages of the methods of `prosocial.training.reward.conflict`; the others need torchjd alone.
CONFLICT_NEEDS: dict[str, tuple[str, ...]] = {"none": (), "nash_mtl": (), "cagrad": ("torchjd", "cvxpy")}


def reward_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages pairs and reward."""
    edited = Upstream("edit")
    is_given = isinstance(recipe.data, FileData) and recipe.data.pairs is not None
    common = {"attributes": list(recipe.attributes), "dtype": recipe.dtype}
    attributes = recipe.resolved_attributes()
    return [
        Stage(
            name="pairs",
            title="label preference pairs",
            run=_take_pairs if is_given else _sample_pairs,
            inputs={"pairs": data_file(recipe.data, "pairs")}
            if is_given
            else {"prompts": data_file(recipe.data, "prompts"), "edited": edited, **judge_inputs(recipe.judge_names())},
            parameters=common
            | recipe.pairs.model_dump(mode="json")
            | {"judges": recipe.attribute_judges()}
            | ({} if is_given else {"sampler": recipe.sampler.model_dump(mode="json", exclude={"base"})}),
            seed=recipe.seed,
        ),
        Stage(
            name="reward",
            title="train the reward model (PBLoRA)",
            run=_train_reward,
            inputs={"edited": edited, "pairs": Upstream("pairs")},
            parameters=common
            | recipe.reward.model_dump(mode="json")
            | {"beta": {attribute.name: attribute.beta for attribute in attributes}},
            seed=recipe.seed,
            needs=("peft", *CONFLICT_NEEDS.get(recipe.reward.conflict, ("torchjd",))),
        ),
    ]


def _take_pairs(context: StageContext) -> str:
    from prosocial.training.reward.pairs import read_pairs, write_pairs

    pairs = read_pairs(context.inputs["pairs"], attributes=context.parameters["attributes"])
    write_pairs(context.out / "pairs.jsonl", pairs)
    return f"{len(pairs)} labelled pairs"


def _sample_pairs(context: StageContext) -> str:
    from prosocial.evaluation.judges.cache import CachedJudge
    from prosocial.evaluation.judges.rehearsal import rehearse
    from prosocial.training.reward.pairs import label_pair, write_pairs

    from ..labelling.judges import attribute_judge
    from .models import sample_replies, training_prompts

    parameters = context.parameters
    prompts = training_prompts(context.inputs["prompts"], parameters["count"])
    judge = attribute_judge(**parameters["judges"])
    trial = rehearse(judge, prompts)
    if trial is not None and not trial.attributes:
        raise InputError(
            f"judge {judge.name} should score the attributes of replies, it scored none of a trial reply: choose a "
            "judge that scores attributes"
        )
    replies = [sample_replies(context, "edited", prompts, seed=context.seed + n) for n in range(2)]
    judge = CachedJudge(judge, context.scratch / "judgements.jsonl")
    candidates = [
        label_pair(messages, first, second, judge=judge, attributes=parameters["attributes"])
        for messages, first, second in zip(prompts, *replies, strict=True)
        if first != second
    ]
    pairs = [pair for pair in candidates if set(pair.labels.values()) != {"missing"}]
    if candidates and not pairs:
        raise InputError(
            f"judge {judge.name} should score the attributes of replies, it labelled none of {len(candidates)} pairs: "
            "choose a judge that scores attributes"
        )
    write_pairs(context.out / "pairs.jsonl", pairs)
    n_labels = sum(label in ("first", "second") for pair in pairs for label in pair.labels.values())
    left_out = f", {len(candidates) - len(pairs)} unlabelled pairs dropped" if len(pairs) < len(candidates) else ""
    return f"{len(pairs)} pairs, {n_labels} labels by judge {judge.name} {judge.version}{left_out}"


def _train_reward(context: StageContext) -> str:
    from prosocial.training.reward.attributes import Attribute

    from .reward_training import train_on_pairs

    parameters = context.parameters
    return train_on_pairs(
        context.inputs["edited"],
        context.inputs["pairs"] / "pairs.jsonl",
        attributes=[Attribute(name, rubric="", beta=parameters["beta"][name]) for name in parameters["attributes"]],
        settings=RewardSettings(**{key: parameters[key] for key in RewardSettings.model_fields}),
        out=context.out,
        checkpoint=context.scratch / "training.safetensors",
        placement=context.placement,
        seed=context.seed,
        progress=context.progress,
    )
