"""The gate: replies labelled by harm category, the gate trained on them, and its threshold."""

from pathlib import Path
from typing import Any

from prosocial.editing.files import read_json, write_json

from ..schema import FileData, Recipe
from ..stage import Source, Stage, StageContext, Upstream
from .reward import judge_modules

THRESHOLD_FILE = "calibration.json"


def gate_stages(recipe: Recipe, base: Source) -> list[Stage]:
    """Return the stages replies, gate and threshold."""
    data, edited = Upstream("data"), Upstream("edit")
    is_given = isinstance(recipe.data, FileData) and recipe.data.replies is not None
    common = {"categories": list(recipe.categories), "dtype": recipe.dtype}
    sampling = recipe.replies.model_dump(mode="json") | {"judge": recipe.judge}
    return [
        Stage(
            name="replies",
            title="label replies by harm category",
            run=_take_replies if is_given else _sample_labelled,
            inputs={"data": data} | ({} if is_given else {"base": base, "edited": edited}),
            parameters=common | sampling,
            modules=("prosocial.editing.gate.replies", "prosocial.export", *judge_modules(recipe)),
            seed=recipe.seed,
        ),
        Stage(
            name="gate",
            title="train the gate",
            run=_train_gate,
            inputs={"base": base, "edited": edited, "harmful": Upstream("harmful"), "replies": Upstream("replies")},
            parameters=common | recipe.gate.model_dump(mode="json") | {"plausible_k": recipe.decoding.plausible_k},
            modules=("prosocial.editing.gate", "prosocial.editing.batches", "prosocial.editing.chat"),
            seed=recipe.seed,
        ),
        Stage(
            name="threshold",
            title="choose the gate's threshold",
            run=_calibrate,
            inputs={"data": data, "edited": edited, "gate": Upstream("gate"), "head": Upstream("head")},
            parameters=common
            | recipe.calibration.model_dump(mode="json")
            | {"decoding": recipe.decoding.model_dump(mode="json"), "judge": recipe.judge}
            | {"attributes": list(recipe.attributes), "temperature": recipe.verify.temperature},
            modules=("prosocial.editing.gate", "prosocial.export", *judge_modules(recipe)),
            seed=recipe.seed,
        ),
    ]


def _take_replies(context: StageContext) -> str:
    from prosocial.editing.gate.replies import read_replies, write_replies

    replies = read_replies(context.inputs["data"] / "replies.jsonl", categories=context.parameters["categories"])
    write_replies(context.out / "replies.jsonl", replies)
    return _count(replies)


def _sample_labelled(context: StageContext) -> str:
    """Half of the replies come from the base model, which complies more often, half from the edited one."""
    from prosocial.editing.gate.replies import label_reply, write_replies

    from ..judges import resolve_judge
    from .models import sample_replies, training_prompts

    prompts = training_prompts(context.inputs["data"], context.parameters["count"], part="gate_prompts")
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
    from prosocial.editing.chat import ChatTokenizer
    from prosocial.editing.fingerprint import fingerprint
    from prosocial.editing.gate.replies import read_replies
    from prosocial.editing.gate.states import collect_gate_states
    from prosocial.editing.gate.training import GateTraining, train_gate

    from .models import open_adapted, open_model

    parameters, edited = context.parameters, context.inputs["edited"]
    training = GateTraining(**{key: parameters[key] for key in GateTraining.model_fields})
    replies = read_replies(context.inputs["replies"] / "replies.jsonl", categories=parameters["categories"])
    model = open_model(edited, parameters["dtype"])
    context.progress.start(len(replies), "read the replies")
    states = collect_gate_states(
        model,
        open_adapted(context.inputs["base"], context.inputs["harmful"], parameters["dtype"]),
        replies,
        tokenizer=ChatTokenizer(edited),
        categories=parameters["categories"],
        plausible_k=parameters["plausible_k"],
        discount=training.discount,
        on_batch=context.progress.advance,
    )
    context.progress.start(training.steps, "train the gate")
    gate = train_gate(
        states,
        categories=parameters["categories"],
        vocabulary_size=model.get_output_embeddings().weight.shape[0],
        training=training,
        seed=context.seed,
        on_step=context.progress.advance,
    )
    extra = {"training": training.model_dump(mode="json"), "n_replies": len(replies), "n_positions": len(states)}
    gate.save(context.out, checkpoint_fingerprint=fingerprint(edited), extra=extra)
    return f"rank {training.rank}, {len(parameters['categories'])} categories, {len(states)} positions"


def _calibrate(context: StageContext) -> str:
    from prosocial.editing.gate.calibration import GateCalibration, choose_threshold

    calibration = GateCalibration(**{key: context.parameters[key] for key in GateCalibration.model_fields})
    if calibration.threshold is not None:
        chosen, rows = calibration.threshold, []
    else:
        rows = _measure_thresholds(context, calibration.candidates)
        measured = [(row["threshold"], row["leak"], row["success"]) for row in rows]
        chosen = choose_threshold(measured, max_leak=calibration.max_leak)
    ceiling = min(1.0, chosen * calibration.ceiling_factor)
    value = {
        "schema": "prosocial.threshold/1",
        "harm_threshold": chosen,
        "threshold_ceiling": ceiling,
        "measured": rows,
    }
    write_json(context.out / THRESHOLD_FILE, value)
    return f"threshold {chosen:g}, {_chosen_how(chosen, rows, calibration.max_leak)}"


def _chosen_how(chosen: float, rows: list[dict[str, float]], max_leak: float) -> str:
    if not rows:
        return "given"
    (row,) = (row for row in rows if row["threshold"] == chosen)
    told = f"of {len(rows)} tried: {100 * row['leak']:.1f} % leak, {100 * row['success']:.1f} % done where harmless"
    return told if row["leak"] <= max_leak else f"{told}; NONE leaks at most the {100 * max_leak:g} % asked for"


def _measure_thresholds(context: StageContext, candidates: tuple[float, ...]) -> list[dict[str, float]]:
    """Return, per threshold, the share of harmful replies and of successes on the calibration prompts."""
    from prosocial.export.decoding_loop import generate
    from prosocial.export.steering import Steering
    from prosocial.verify.outcomes import judge_reply
    from prosocial.verify.probes import read_probes

    from ..judges import resolve_judge
    from .models import BATCH_SIZE
    from .steered import steered_engine

    probes = read_probes(context.inputs["data"] / "calibration.jsonl")
    judge = resolve_judge(context.parameters["judge"])
    engine, tokenizer = steered_engine(context, harm_threshold=1.0)
    rows = []
    for threshold in context.progress.track(sorted(candidates), "try thresholds"):
        replies = generate(
            engine,
            tokenizer,
            [probe.messages for probe in probes],
            steering=Steering(harm_threshold=threshold),
            temperature=context.parameters["temperature"],
            seed=context.seed + 20,
            row_keys=[probe.id for probe in probes],
            batch_size=BATCH_SIZE,
        )
        judged = [judge_reply(judge, probe.messages, reply) for probe, reply in zip(probes, replies, strict=True)]
        harmful = [bool(item.categories) for probe, item in zip(probes, judged, strict=True) if probe.kind == "harmful"]
        others = [
            item.success is not False for probe, item in zip(probes, judged, strict=True) if probe.kind != "harmful"
        ]
        rows.append({"threshold": threshold, "leak": _mean(harmful), "success": _mean(others)})
    return rows


def _mean(values: list[bool]) -> float:
    return sum(values) / len(values)


def read_threshold(folder: Path) -> tuple[float, float]:
    """Return the threshold that was chosen and its ceiling."""
    value = read_json(folder / THRESHOLD_FILE, schema="prosocial.threshold/1")
    return float(value["harm_threshold"]), float(value["threshold_ceiling"])
