"""The preferences: labelled pairs, and the reward model trained on them."""

from dataclasses import asdict
from typing import Any

from ..schema import FileData, Recipe
from ..stage import Stage, StageContext, Upstream

HELD_OUT_SHARE = 0.1


def reward_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages pairs and reward."""
    data, edited = Upstream("data"), Upstream("edit")
    is_given = isinstance(recipe.data, FileData) and recipe.data.pairs is not None
    common = {"attributes": list(recipe.attributes), "dtype": recipe.dtype}
    attributes = recipe.resolved_attributes()
    judges = {attribute.name: attribute.judge or recipe.judge for attribute in attributes}
    return [
        Stage(
            name="pairs",
            title="label preference pairs",
            run=_take_pairs if is_given else _sample_pairs,
            inputs={"data": data} | ({} if is_given else {"edited": edited}),
            parameters=common | recipe.pairs.model_dump(mode="json") | {"judges": judges},
            modules=("prosocial.editing.reward.pairs", "prosocial.export", *judge_modules(recipe)),
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
            modules=("prosocial.editing.reward", "prosocial.editing.batches", "prosocial.editing.chat"),
            seed=recipe.seed,
        ),
    ]


def judge_modules(recipe: Recipe) -> tuple[str, ...]:
    """Return the modules that a stage's labels hang on."""
    return ("prosocial.recipes.judges", "prosocial.recipes.lab" if recipe.judge == "lab" else "prosocial.verify.judges")


def _take_pairs(context: StageContext) -> str:
    from prosocial.editing.reward.pairs import read_pairs, write_pairs

    pairs = read_pairs(context.inputs["data"] / "pairs.jsonl", attributes=context.parameters["attributes"])
    write_pairs(context.out / "pairs.jsonl", pairs)
    return f"{len(pairs)} labelled pairs"


def _sample_pairs(context: StageContext) -> str:
    from prosocial.editing.reward.pairs import label_pair, write_pairs

    from ..judges import resolve_judges
    from .models import sample_replies, training_prompts

    parameters = context.parameters
    prompts = training_prompts(context.inputs["data"], parameters["count"])
    replies = [sample_replies(context, context.inputs["edited"], prompts, seed=context.seed + n) for n in range(2)]
    judge = resolve_judges(parameters["judges"])
    pairs = [
        label_pair(messages, first, second, judge=judge, attributes=parameters["attributes"])
        for messages, first, second in zip(prompts, *replies, strict=True)
        if first != second
    ]
    write_pairs(context.out / "pairs.jsonl", pairs)
    n_labels = sum(label in ("first", "second") for pair in pairs for label in pair.labels.values())
    return f"{len(pairs)} pairs, {n_labels} labels by judge {judge.name} {judge.version}"


def _train_reward(context: StageContext) -> str:
    from prosocial.editing.chat import ChatTokenizer
    from prosocial.editing.files import write_json
    from prosocial.editing.fingerprint import fingerprint
    from prosocial.editing.reward.accuracy import pair_accuracy
    from prosocial.editing.reward.attributes import Attribute
    from prosocial.editing.reward.encoded_pairs import label_agreement
    from prosocial.editing.reward.model import RewardConfig, RewardModel
    from prosocial.editing.reward.settings import RewardTraining
    from prosocial.editing.reward.training import train_reward

    from .models import open_model

    names, edited = context.parameters["attributes"], context.inputs["edited"]
    training = RewardTraining(**{key: context.parameters[key] for key in RewardTraining.model_fields})
    reward = RewardModel(
        open_model(edited, context.parameters["dtype"]),
        RewardConfig(attributes=tuple(names), **context.parameters["adapter"]),
    )
    train, held_out = encoded_pairs(context, training.max_tokens)
    context.progress.start(training.steps, "train the reward model")
    history = train_reward(
        reward,
        train,
        attributes=[Attribute(name, rubric="", beta=context.parameters["beta"][name]) for name in names],
        training=training,
        pad_id=ChatTokenizer(edited).pad_id,
        seed=context.seed,
        checkpoint=context.scratch / "training.safetensors",
        on_step=context.progress.advance,
    )
    accuracy = pair_accuracy(reward, held_out, attributes=names, pad_id=ChatTokenizer(edited).pad_id)
    report = {
        "steps": [asdict(record) for record in history],
        "pair_accuracy": accuracy,
        "label_agreement": {"attributes": names, "share": label_agreement(train.signs)},
    }
    reward.save(context.out, checkpoint_fingerprint=fingerprint(edited), training=training.model_dump(mode="json"))
    write_json(context.out / "training.json", report)
    corners = [value["corner"] for value in accuracy.values()]
    return f"held-out pairs ranked right at the corners: {min(corners):.0%} to {max(corners):.0%}"


def encoded_pairs(context: StageContext, max_tokens: int) -> tuple[Any, Any]:
    """Return the training pairs and the last tenth, which is held out."""
    from prosocial.editing.chat import ChatTokenizer
    from prosocial.editing.reward.encoded_pairs import EncodedPairs
    from prosocial.editing.reward.pairs import read_pairs

    names = context.parameters["attributes"]
    pairs = read_pairs(context.inputs["pairs"] / "pairs.jsonl", attributes=names)
    tokenizer = ChatTokenizer(context.inputs["edited"])
    n_held_out = max(1, round(HELD_OUT_SHARE * len(pairs)))
    train = EncodedPairs.from_pairs(pairs[:-n_held_out], tokenizer=tokenizer, attributes=names, max_tokens=max_tokens)
    held_out = EncodedPairs.from_pairs(
        pairs[-n_held_out:], tokenizer=tokenizer, attributes=names, max_tokens=max_tokens, require_labels=False
    )
    return train, held_out
