"""The gate: replies labelled by harm category, and the gate trained on them and scaled."""

from typing import Any

from prosocial.evaluation.judges.requests import HarmRequest

from ..labelling.judges import judge_inputs, judge_named
from ..workflow.stage import Source, Stage, StageContext, Upstream
from .schema import FileData, GateSettings, Recipe
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
            else {"prompts": prompts, "base": base, "edited": edited, **judge_inputs([recipe.judge])},
            parameters=common | sampling,
            seed=recipe.seed,
        ),
        Stage(
            name="gate",
            title="train the gate",
            run=_train_gate,
            inputs={"base": base, "edited": edited, "harmful": Upstream("harmful"), "replies": Upstream("replies")}
            | ({"prompts": prompts, **judge_inputs([recipe.judge])} if recipe.gate.on_policy.count else {}),
            parameters=common
            | sampling
            | {"gate": recipe.gate.model_dump(mode="json"), "plausible_k": recipe.decoding.plausible_k},
            seed=recipe.seed,
        ),
    ]


def _take_replies(context: StageContext) -> str:
    from prosocial.training.gate.replies import read_replies, write_replies

    replies = read_replies(context.inputs["replies"], categories=context.parameters["categories"])
    write_replies(context.out / "replies.jsonl", replies)
    return _count(replies)


def _sample_labelled(context: StageContext) -> str:
    """Half of the replies come from the base model, which complies more often, half from the edited one."""
    from prosocial.training.gate.replies import label_replies, write_replies

    from .models import sample_replies, training_prompts

    prompts = training_prompts(context.inputs["prompts"], context.parameters["count"])
    middle = (len(prompts) + 1) // 2
    replies = sample_replies(context, context.inputs["base"], prompts[:middle], seed=context.seed + 10)
    replies += sample_replies(context, context.inputs["edited"], prompts[middle:], seed=context.seed + 11)
    categories = context.parameters["categories"]
    judge = judge_named(context.parameters["judge"], HarmRequest(categories))
    labelled, n_unjudged = label_replies(prompts, replies, judge=judge, categories=categories)
    write_replies(context.out / "replies.jsonl", labelled)
    return _count(labelled) + _left_out(n_unjudged)


def _count(replies: list[Any]) -> str:
    return f"{len(replies)} replies, {sum(bool(item.categories) for item in replies)} of them harmful"


def _left_out(n_unjudged: int) -> str:
    return f", {n_unjudged} more could not be judged and are left out" if n_unjudged else ""


def _train_gate(context: StageContext) -> str:
    """Train on all replies but the last, which the scaling is fitted to; a draft comes first for on-policy replies."""
    from prosocial.core.batches import held_out_split
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.gate.replies import read_replies
    from prosocial.training.gate.scaling import apply_scaling, fit_scaling

    parameters, settings = context.parameters, GateSettings(**context.parameters["gate"])
    replies = read_replies(context.inputs["replies"] / "replies.jsonl", categories=parameters["categories"])
    reader = _Reader(context, settings)
    states = reader.read(replies)
    is_kept = states.reply >= len(held_out_split(replies, settings.held_out_share)[0])
    training, kept = states.rows(~is_kept), states.rows(is_kept)
    n_hard = n_unjudged = 0
    if settings.on_policy.count:
        draft = reader.train(training, settings.draft())
        hard, n_unjudged = _on_policy_states(context, settings, reader, draft)
        n_hard = len(hard.reply.unique())
        training = training.joined(hard) if n_hard else training
    gate = reader.train(training, settings)
    scaling = fit_scaling(gate, kept) if is_kept.any() else None
    if scaling is not None and scaling.helps:
        apply_scaling(gate, scaling)
    extra = {"training": settings.model_dump(mode="json"), "n_replies": len(replies), "n_positions": len(training)}
    extra |= {"n_on_policy": n_hard, "n_unjudged": n_unjudged}
    extra |= {"scaling": None if scaling is None else scaling.to_json()}
    gate.save(context.out, checkpoint_fingerprint=fingerprint(context.inputs["edited"]), extra=extra)
    told = ", scaled" if scaling is not None and scaling.helps else ""
    on_policy = f" with {n_hard} on-policy replies{_left_out(n_unjudged)}" if settings.on_policy.count else ""
    return f"rank {settings.rank}, {len(gate.categories)} categories, {len(training)} positions{on_policy}{told}"


class _Reader:
    """The models of the stage, opened once: reads replies into states and trains gates on them."""

    def __init__(self, context: StageContext, settings: GateSettings) -> None:
        from prosocial.core.chat import ChatTokenizer

        from .models import open_adapted, open_model

        self._context, self._settings, dtype = context, settings, context.parameters["dtype"]
        self.model = open_model(context.inputs["edited"], dtype)
        self.tokenizer = ChatTokenizer(context.inputs["edited"])
        self._harmful = open_adapted(context.inputs["base"], context.inputs["harmful"], dtype)

    def read(self, replies: list[Any]) -> Any:
        """Return the states of labelled replies."""
        from prosocial.training.gate.states import collect_gate_states

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
        from prosocial.training.gate.training import train_gate

        self._context.progress.start(training.steps, "train the gate")
        return train_gate(
            states,
            categories=self._context.parameters["categories"],
            vocabulary_size=self.model.get_output_embeddings().weight.shape[0],
            training=training,
            seed=self._context.seed,
            on_step=self._context.progress.advance,
        )


def _on_policy_states(context: StageContext, settings: GateSettings, reader: _Reader, draft: Any) -> tuple[Any, int]:
    """Return the states of replies of the gated model that leaked, or came near to being stopped.

    Beside them how many replies could not be judged: those are left out.
    """
    from prosocial.steering.decoding.loop import generate
    from prosocial.training.gate.on_policy import hard_positions
    from prosocial.training.gate.replies import label_replies

    from .engines import gated_engine
    from .models import BATCH_SIZE, training_prompts

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
    categories = context.parameters["categories"]
    judge = judge_named(context.parameters["judge"], HarmRequest(categories))
    given = [pair for pair in zip(prompts, replies, strict=True) if pair[1].finish != "fallback"]
    labelled, n_unjudged = label_replies(
        [messages for messages, _ in given],
        [reply.text for _, reply in given],
        judge=judge,
        categories=categories,
    )
    states = reader.read(labelled)
    return states.rows(hard_positions(draft, states, near=on_policy.near * on_policy.threshold)), n_unjudged
