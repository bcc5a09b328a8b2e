"""The gate: replies labelled by harm category, and the gate trained on them and scaled."""

from typing import Any

from ..schema import FileData, GateSettings, Recipe
from ..stage import Source, Stage, StageContext, Upstream
from .sources import data_file


def gate_stages(recipe: Recipe, base: Source) -> list[Stage]:
    """Return the stages replies and gate."""
    edited, prompts = Upstream("edit"), data_file(recipe.data, "gate_prompts")
    is_given = isinstance(recipe.data, FileData) and recipe.data.replies is not None
    common = {"categories": list(recipe.categories), "dtype": recipe.dtype}
    sampling = recipe.replies.model_dump(mode="json") | {"judge": recipe.judge}
    return [
        Stage(
            name="replies",
            title="label replies by harm category",
            run=_take_replies if is_given else _sample_labelled,
            inputs={"replies": data_file(recipe.data, "replies")}
            if is_given
            else {"prompts": prompts, "base": base, "edited": edited},
            parameters=common | sampling,
            seed=recipe.seed,
        ),
        Stage(
            name="gate",
            title="train the gate",
            run=_train_gate,
            inputs={"base": base, "edited": edited, "harmful": Upstream("harmful"), "replies": Upstream("replies")}
            | ({"prompts": prompts} if recipe.gate.on_policy.count else {}),
            parameters=common
            | sampling
            | {"gate": recipe.gate.model_dump(mode="json"), "plausible_k": recipe.decoding.plausible_k},
            seed=recipe.seed,
        ),
    ]


def _take_replies(context: StageContext) -> str:
    from prosocial.editing.gate.replies import read_replies, write_replies

    replies = read_replies(context.inputs["replies"], categories=context.parameters["categories"])
    write_replies(context.out / "replies.jsonl", replies)
    return _count(replies)


def _sample_labelled(context: StageContext) -> str:
    """Half of the replies come from the base model, which complies more often, half from the edited one."""
    from prosocial.editing.gate.replies import label_reply, write_replies

    from ..judges import resolve_judge
    from .models import sample_replies, training_prompts

    prompts = training_prompts(context.inputs["prompts"], context.parameters["count"])
    middle = (len(prompts) + 1) // 2
    replies = sample_replies(context, context.inputs["base"], prompts[:middle], seed=context.seed + 10)
    replies += sample_replies(context, context.inputs["edited"], prompts[middle:], seed=context.seed + 11)
    judge = resolve_judge(context.parameters["judge"])
    labelled = [label_reply(messages, reply, judge=judge) for messages, reply in zip(prompts, replies, strict=True)]
    write_replies(context.out / "replies.jsonl", labelled)
    return _count(labelled)


def _count(replies: list[Any]) -> str:
    return f"{len(replies)} replies, {sum(bool(item.categories) for item in replies)} of them harmful"


def _train_gate(context: StageContext) -> str:
    """Train on all replies but the last, which the scaling is fitted to; a draft comes first for on-policy replies."""
    from prosocial.editing.fingerprint import fingerprint
    from prosocial.editing.gate.replies import read_replies
    from prosocial.editing.gate.scaling import apply_scaling, fit_scaling

    parameters, settings = context.parameters, GateSettings(**context.parameters["gate"])
    replies = read_replies(context.inputs["replies"] / "replies.jsonl", categories=parameters["categories"])
    reader = _Reader(context, settings)
    states = reader.read(replies)
    is_kept = states.reply >= len(replies) - round(settings.held_out_share * len(replies))
    training, kept = states.rows(~is_kept), states.rows(is_kept)
    n_hard = 0
    if settings.on_policy.count:
        draft = reader.train(training, settings.draft())
        hard = _on_policy_states(context, settings, reader, draft)
        n_hard = len(hard.reply.unique())
        training = training.joined(hard) if n_hard else training
    gate = reader.train(training, settings)
    scaling = fit_scaling(gate, kept) if is_kept.any() else None
    if scaling is not None and scaling.helps:
        apply_scaling(gate, scaling)
    extra = {"training": settings.model_dump(mode="json"), "n_replies": len(replies), "n_positions": len(training)}
    extra |= {"n_on_policy": n_hard, "scaling": None if scaling is None else scaling.to_json()}
    gate.save(context.out, checkpoint_fingerprint=fingerprint(context.inputs["edited"]), extra=extra)
    told = ", scaled" if scaling is not None and scaling.helps else ""
    on_policy = f" with {n_hard} on-policy replies" if settings.on_policy.count else ""
    return f"rank {settings.rank}, {len(gate.categories)} categories, {len(training)} positions{on_policy}{told}"


class _Reader:
    """The models of the stage, opened once: reads replies into states and trains gates on them."""

    def __init__(self, context: StageContext, settings: GateSettings) -> None:
        from prosocial.editing.chat import ChatTokenizer

        from .models import open_adapted, open_model

        self._context, self._settings, dtype = context, settings, context.parameters["dtype"]
        self.model = open_model(context.inputs["edited"], dtype)
        self.tokenizer = ChatTokenizer(context.inputs["edited"])
        self._harmful = open_adapted(context.inputs["base"], context.inputs["harmful"], dtype)

    def read(self, replies: list[Any]) -> Any:
        """Return the states of labelled replies."""
        from prosocial.editing.gate.states import collect_gate_states

        self._context.progress.start(len(replies), "read the replies")
        return collect_gate_states(
            self.model,
            self._harmful,
            replies,
            tokenizer=self.tokenizer,
            categories=self._context.parameters["categories"],
            plausible_k=self._context.parameters["plausible_k"],
            discount=self._settings.discount,
            on_batch=self._context.progress.advance,
        )

    def train(self, states: Any, training: GateSettings) -> Any:
        """Return a gate trained from scratch."""
        from prosocial.editing.gate.training import train_gate

        self._context.progress.start(training.steps, "train the gate")
        return train_gate(
            states,
            categories=self._context.parameters["categories"],
            vocabulary_size=self.model.get_output_embeddings().weight.shape[0],
            training=training,
            seed=self._context.seed,
            on_step=self._context.progress.advance,
        )


def _on_policy_states(context: StageContext, settings: GateSettings, reader: _Reader, draft: Any) -> Any:
    """Return the states of replies of the gated model that leaked, or came near to being stopped."""
    from prosocial.editing.gate.on_policy import hard_positions
    from prosocial.editing.gate.replies import label_reply
    from prosocial.export.decoding_loop import generate

    from ..judges import resolve_judge
    from .models import BATCH_SIZE, training_prompts
    from .steered import gated_engine

    on_policy = settings.on_policy
    prompts = training_prompts(context.inputs["prompts"], on_policy.count)
    engine = gated_engine(reader.model, draft, reader.tokenizer, context.parameters["plausible_k"], on_policy.threshold)
    replies = generate(
        engine,
        reader.tokenizer,
        prompts,
        temperature=context.parameters["temperature"],
        max_new_tokens=context.parameters["max_new_tokens"],
        seed=context.seed + 12,
        batch_size=BATCH_SIZE,
    )
    judge = resolve_judge(context.parameters["judge"])
    given = [
        (messages, reply.text) for messages, reply in zip(prompts, replies, strict=True) if reply.finish != "fallback"
    ]
    states = reader.read([label_reply(messages, text, judge=judge) for messages, text in given])
    return states.rows(hard_positions(draft, states, near=on_policy.near * on_policy.threshold))
