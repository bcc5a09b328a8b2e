"""The compact head, distilled from the reward model on the pairs' replies and on replies of its own."""

from typing import Any

from ..workflow.stage import Stage, StageContext, Upstream
from .reward_training import HELD_OUT_SHARE, encoded_pairs
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
    import torch

    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.head.distance import head_distance
    from prosocial.training.head.distil import DistilTraining, distil
    from prosocial.training.head.states import collect_states
    from prosocial.training.reward.model import RewardModel

    from .models import open_model

    names, edited = context.parameters["attributes"], context.inputs["edited"]
    training = DistilTraining(**{key: context.parameters[key] for key in DistilTraining.model_fields})
    digest, pad_id = fingerprint(edited), ChatTokenizer(edited).pad_id
    model = open_model(edited, context.parameters["dtype"])
    reward = RewardModel.load(context.inputs["reward"], model, checkpoint_fingerprint=digest)
    pairs = context.inputs["pairs"] / "pairs.jsonl"
    train, held_out = encoded_pairs(edited, pairs, names, max_tokens=training.max_tokens)
    sequences = train.sequences[: training.sequences]
    context.progress.start(len(sequences) * training.passes + training.on_policy, "read the teacher and fit the head")
    head, _ = distil(
        reward,
        sequences,
        training=training,
        pad_id=pad_id,
        seed=context.seed,
        draw=lambda student, asked: _own_replies(context, student, asked, training),
        on_batch=context.progress.advance,
    )
    distances = {}
    for index, name in enumerate(names):
        corner = torch.eye(len(names))[index].expand(len(held_out.sequences), -1)
        states = collect_states(reward, held_out.sequences, corner, plausible_k=training.plausible_k, pad_id=pad_id)
        weight = model.get_output_embeddings().weight
        distances[name] = head_distance(head, states, weight, inverse_beta=training.inverse_beta)
    head.save(
        context.out,
        checkpoint_fingerprint=digest,
        extra={
            "training": training.model_dump(mode="json"),
            "explained_share": {name: found.explained for name, found in distances.items()},
            "distance": {name: found.to_json() for name, found in distances.items()},
        },
    )
    explained = [found.explained for found in distances.values()]
    return f"rank {training.rank}, explains {min(explained):.0%} to {max(explained):.0%} of its teacher"


def _own_replies(context: StageContext, head: Any, preferences: Any, training: Any) -> list[Any]:
    """Draw one reply of the student under each preference [n, k], to the prompts of the training pairs in turn."""
    from prosocial.core.batches import EncodedReply, held_out_split
    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.loop import generate
    from prosocial.training.reward.pairs import read_pairs

    from .engines import ungated_engine
    from .models import BATCH_SIZE, open_model

    edited, names = context.inputs["edited"], context.parameters["attributes"]
    tokenizer = ChatTokenizer(edited)
    engine = ungated_engine(open_model(edited), head, tokenizer, training.plausible_k, 1 / training.inverse_beta)
    pairs = read_pairs(context.inputs["pairs"] / "pairs.jsonl", attributes=names)
    train, _ = held_out_split(pairs, HELD_OUT_SHARE, at_least=1)
    prompts = [train[row % len(train)].messages for row in range(len(preferences))]
    replies = generate(
        engine,
        tokenizer,
        prompts,
        steering=[Steering(preference=dict(zip(names, row, strict=True))) for row in preferences.tolist()],
        temperature=context.parameters["temperature"],
        seed=context.seed + 1,
        max_new_tokens=context.parameters["max_new_tokens"],
        batch_size=BATCH_SIZE,
    )
    return [
        EncodedReply(
            tuple(tokenizer.encode_chat(messages)),
            reply.token_ids + (tokenizer.end_ids[:1] if reply.finish == "end" else ()),
        )
        for messages, reply in zip(prompts, replies, strict=True)
    ]
