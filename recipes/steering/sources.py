"""The first stages: they copy the data as JSONL files into one folder and provide the base checkpoint."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import canonical_json, read_jsonl, storage_errors
from prosocial.core.training_rows import pair_of, prompt_of, reply_of
from prosocial.editing.checkpoints import Checkpoint, refuse_quantised, resolve_model
from prosocial.evaluation.gate.threshold import least_prompts, too_few_prompts
from prosocial.evaluation.probes.probe import read_probes

from ..workflow.stage import Outside, Source, Stage, StageContext, Upstream
from .schema import FileData, LabData, LabModel, Recipe

if TYPE_CHECKING:
    from ..lab.world import WorldSize

READERS: dict[str, Callable[..., object]] = {
    "harmful": reply_of,
    "replies": reply_of,
    "pairs": pair_of,
    "prompts": prompt_of,
    "gate_prompts": prompt_of,
}
DATA_FILES = ("harmful", "prompts", "calibration", "probes", "pairs", "replies", "gate_prompts")


class ModelRecipe(Protocol):
    """The fields of a recipe that this module reads, for any pipeline."""

    @property
    def model(self) -> str | LabModel:
        """The base model: a folder, a Hub id, or the lab's base model."""
        ...

    @property
    def seed(self) -> int:
        """The seed of every stage."""
        ...


def data_stage(recipe: Recipe) -> Stage:
    """Return the stage that writes the data as `<part>.jsonl` into one folder.

    Raises:
        InputError: there are too few harmful calibration prompts to show the leak rate that the recipe requires.
    """
    _require_enough(recipe)
    if isinstance(recipe.data, LabData):
        return lab_data_stage(recipe.data.lab, seed=recipe.seed)
    files = _files(recipe.data)
    return Stage(
        name="data",
        title="check the data files",
        run=_lay_out,
        inputs={part: Outside(path) for part, path in files.items()},
        parameters={"attributes": list(recipe.attributes), "categories": list(recipe.categories)},
        copies={f"{part}.jsonl": part for part in files},
        seed=recipe.seed,
    )


def data_file(data: LabData | FileData, part: str) -> Upstream:
    """Return one data file as an input of a stage; `gate_prompts` falls back to `prompts`."""
    if part == "gate_prompts" and isinstance(data, FileData) and data.gate_prompts is None:
        part = "prompts"
    return Upstream("data", f"{part}.jsonl")


def lab_data_stage(size: "WorldSize", *, seed: int) -> Stage:
    """Return the stage that writes the lab's files."""
    return Stage(
        name="data",
        title="write the lab's world",
        run=_write_lab,
        parameters=size.model_dump(mode="json"),
        seed=seed,
    )


def _require_enough(recipe: Recipe) -> None:
    """Reject too few calibration prompts before anything runs; the data stage reports a missing file."""
    if recipe.calibration.threshold is not None:
        return
    if isinstance(recipe.data, LabData):
        n_harmful = recipe.data.lab.harmful_calibration
    elif recipe.data.calibration.is_file():
        n_harmful = sum(probe.kind == "harmful" for probe in read_probes(recipe.data.calibration))
    else:
        return
    target = {"max_leak": recipe.calibration.max_leak, "confidence": recipe.calibration.confidence}
    if 0 < n_harmful < least_prompts(**target):
        raise InputError(too_few_prompts(n_harmful, **target))


def base_source(recipe: ModelRecipe) -> tuple[Source, list[Stage]]:
    """Return the source of the base checkpoint and the stages that train it (none for an existing checkpoint)."""
    if isinstance(recipe.model, LabModel):
        return Upstream("base"), [_lab_base_stage(recipe, recipe.model)]
    folder = resolve_model(recipe.model)
    checkpoint = Checkpoint.open(folder)
    refuse_quantised(checkpoint)
    _require_fit(ChatTokenizer(folder), checkpoint)
    return Outside(folder), []


def _require_fit(tokenizer: ChatTokenizer, checkpoint: Checkpoint) -> None:
    """Reject a tokenizer whose vocabulary or chat template has ids beyond the embedding matrix.

    Added tokens that no chat uses may be beyond it, such as Gemma 3's `<image_soft_token>`.
    """
    config = checkpoint.config
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    chat = tokenizer.encode_chat([{"role": "user", "content": "."}])
    largest = max(tokenizer.n_words - 1, *tokenizer.end_ids, *chat)
    if rows is not None and largest >= rows:
        raise ArtefactError(
            f"{checkpoint.folder} should have a tokenizer whose ids are below vocab_size {rows} of config.json, found "
            f"the id {largest}: use the tokenizer of this model"
        )


def _lab_base_stage(recipe: ModelRecipe, model: LabModel) -> Stage:
    return Stage(
        name="base",
        title="train the lab's base model",
        run=_train_lab_base,
        inputs={"conversations": Upstream("data", "conversations.jsonl")},
        parameters=model.lab.model_dump(mode="json") | {"dtype": "float32"},
        seed=recipe.seed,
    )


def _write_lab(context: StageContext) -> str:
    from ..lab.world import WorldSize, write_world

    return write_world(context.out, WorldSize(**context.parameters), seed=context.seed)


def _files(data: FileData) -> dict[str, Path]:
    given = {part: getattr(data, part) for part in DATA_FILES}
    return {part: path for part, path in given.items() if path is not None}


def _lay_out(context: StageContext) -> str:
    counts = []
    for part, path in context.inputs.items():
        rows = read_probes(path) if part in ("calibration", "probes") else _checked_rows(part, path)
        _check_labels(part, path, context.parameters)
        shutil.copyfile(path, context.out / f"{part}.jsonl")  # not a link: the user may edit the file in place
        counts.append(f"{len(rows)} {part}")
    _check_probes(context.out)
    return ", ".join(counts)


def _checked_rows(part: str, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a data file after reading each as the later stages will."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        READERS[part](row, where=f"{path} row {number}")
    return rows


def _check_labels(part: str, path: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Check the labels as the reward model and the gate will, hours later."""
    if part == "pairs":
        from prosocial.training.reward.held_out import split_pairs
        from prosocial.training.reward.pairs import read_pairs, require_labels

        require_labels(split_pairs(read_pairs(path, attributes=names["attributes"]))[0], names["attributes"])
    elif part == "replies":
        from prosocial.training.gate.replies import read_replies

        read_replies(path, categories=names["categories"])


def _check_probes(data: Path) -> None:
    """Check that calibration has harmful and harmless requests, none of which are among the report's probes."""
    calibration, probes = (read_probes(data / f"{part}.jsonl") for part in ("calibration", "probes"))
    n_harmful = sum(probe.kind == "harmful" for probe in calibration)
    if not 0 < n_harmful < len(calibration):
        raise InputError(
            f"calibration should have harmful and harmless probes, found {n_harmful} harmful of {len(calibration)}: "
            "add the missing kind"
        )
    id_of_request = {canonical_json(list(probe.messages)): probe.id for probe in probes}
    for probe in calibration:
        request = canonical_json(list(probe.messages))
        if request in id_of_request:
            raise InputError(
                f"calibration should share no request with probes, since the threshold is chosen on it: {probe.id!r} "
                f"is the same request as {id_of_request[request]!r}; remove one of them"
            )


def _train_lab_base(context: StageContext) -> str:
    from prosocial.core.batches import encode_reply
    from prosocial.core.chat import ChatTokenizer

    from ..lab.base import train_base
    from ..lab.settings import BaseTraining
    from ..lab.tokenizer import train_tokenizer

    training = BaseTraining(**{name: context.parameters[name] for name in BaseTraining.model_fields})
    rows = read_jsonl(context.inputs["conversations"])
    texts = (" ".join([turn["content"] for turn in row["messages"]] + [row["reply"]]) for row in rows[:4000])
    train_tokenizer(texts, context.out, vocabulary_size=training.vocabulary_size)
    tokenizer = ChatTokenizer(context.out)
    sequences = [
        encode_reply(tokenizer, row["messages"], row["reply"])
        for row in context.progress.track(rows, "encode conversations")
    ]
    context.progress.start(training.steps, "train the base model")
    model = train_base(
        sequences,
        tokenizer=tokenizer,
        training=training,
        seed=context.seed,
        device=context.device,
        on_step=context.progress.advance,
    ).cpu()
    with storage_errors(context.out):
        model.save_pretrained(str(context.out))
    return f"{model.num_parameters() / 1e6:.2f} M parameters, {training.steps} steps"
