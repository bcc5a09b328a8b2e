"""The gate: replies labelled by harm category, and the gate trained on them and scaled."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from prosocial.evaluation.judges.requests import HarmRequest
from prosocial.training.gate.settings import GateSettings

from ..labelling.judges import judge_inputs, judge_named
from ..workflow.stage import Source, Stage, StageContext, Upstream
from .schema import FileData, Recipe
from .sources import data_file

if TYPE_CHECKING:
    from prosocial.training.gate.replies import LabelledReply


def gate_stages(recipe: Recipe, base: Source) -> list[Stage]:
    """Return the stages replies and gate."""
    edited, prompts = Upstream("edit"), data_file(recipe.data, "gate_prompts")
    is_given = isinstance(recipe.data, FileData) and recipe.data.replies is not None
    common = {"categories": list(recipe.categories), "dtype": recipe.dtype}
    sampling = recipe.replies.model_dump(mode="json") | {"judge": recipe.judge}
    sampler = {"sampler": recipe.sampler.model_dump(mode="json")}
    return [
        Stage(
            name="replies",
            title="label replies by harm category",
            run=_take_replies if is_given else _sample_labelled,
            inputs={"replies": data_file(recipe.data, "replies")}
            if is_given
            else {"prompts": prompts, "base": base, "edited": edited, **judge_inputs([recipe.judge])},
            parameters=common | sampling | ({} if is_given else sampler),
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
    from prosocial.evaluation.judges.cache import CachedJudge
    from prosocial.evaluation.judges.rehearsal import rehearse
    from prosocial.training.gate.replies import label_replies, write_replies
    from prosocial.training.gate.trained_gate import left_out

    from .models import sample_replies, training_prompts

    prompts = training_prompts(context.inputs["prompts"], context.parameters["count"])
    middle = (len(prompts) + 1) // 2
    categories = context.parameters["categories"]
    judge = judge_named(context.parameters["judge"], HarmRequest(categories))
    rehearse(judge, prompts)
    replies = sample_replies(context, "base", prompts[:middle], seed=context.seed + 10)
    replies += sample_replies(context, "edited", prompts[middle:], seed=context.seed + 11)
    judge = CachedJudge(judge, context.scratch / "judgements.jsonl")
    labelled, n_unjudged = label_replies(prompts, replies, judge=judge, categories=categories)
    write_replies(context.out / "replies.jsonl", labelled)
    return _count(labelled) + left_out(n_unjudged)


def _count(replies: "Sequence[LabelledReply]") -> str:
    return f"{len(replies)} replies, {sum(bool(item.categories) for item in replies)} of them harmful"


def _train_gate(context: StageContext) -> str:
    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.evaluation.judges.rehearsal import rehearse
    from prosocial.training.gate.from_replies import OnPolicyPrompts, train_gate_on_replies
    from prosocial.training.gate.harmful_model import load_harmful
    from prosocial.training.gate.replies import read_replies
    from prosocial.training.reply_sampling import ReplySampling

    from .models import open_model, training_prompts

    parameters, inputs, settings = context.parameters, context.inputs, GateSettings(**context.parameters["gate"])
    categories = parameters["categories"]
    on_policy = None
    if settings.on_policy.count:
        on_policy = OnPolicyPrompts(  # drawn under a draft of the gate, which no other server has
            training_prompts(inputs["prompts"], settings.on_policy.count),
            judge_named(parameters["judge"], HarmRequest(categories)),
            ReplySampling(**{name: parameters[name] for name in ReplySampling.model_fields}),
        )
        rehearse(on_policy.judge, on_policy.conversations)
    trained = train_gate_on_replies(
        partial(open_model, inputs["edited"], context.placement),
        read_replies(inputs["replies"] / "replies.jsonl", categories=categories),
        tokenizer=ChatTokenizer(inputs["edited"]),
        categories=categories,
        settings=settings,
        harmful=partial(
            load_harmful,
            inputs["harmful"],
            base=inputs["base"],
            dtype=context.placement.torch_dtype,
            device=context.device,
        ),
        on_policy=on_policy,
        plausible_k=parameters["plausible_k"],
        seed=context.seed,
        scratch=context.scratch,
        progress=context.progress,
    )
    trained.save(context.out, checkpoint_fingerprint=fingerprint(inputs["edited"]))
    return trained.summary
