"""Tunes a checkpoint on JSONL rows: supervised fine-tuning on replies, or DPO on preference pairs."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.files import canonical_json
from prosocial.core.placement import Placement
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import pair_of, reply_of
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.training.tuning.settings import ON_CPU, PreferenceTuning, Tuning

from ..reading.loading import describe
from ..reading.overrides import apply_overrides

SETTINGS: dict[str, type[Tuning]] = {"sft": Tuning, "dpo": PreferenceTuning}
ROWS = {"sft": "chosen.jsonl", "dpo": "preferences.jsonl"}  # files of the stage preferences


def tune_rows(
    base: Path,
    rows: Path,
    *,
    out: Path,
    tuning: Tuning,
    seed: int,
    scratch: Path,
    placement: Placement = ON_CPU,
    on_start: Callable[[int], None] = lambda n_steps: None,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> str:
    """Tune a checkpoint on a file of rows, write the result to `out` and return a one-line summary.

    Args:
        base: folder of the checkpoint to start from.
        rows: file of replies (`prosocial.core.training_rows.reply_of`), for `PreferenceTuning` of pairs (`pair_of`).
        out: folder of the tuned checkpoint.
        tuning: settings of the training; `PreferenceTuning` selects DPO.
        seed: seed of the order of the rows.
        scratch: folder for training checkpoints; a killed training resumes from them.
        placement: device and dtype of the model.
        on_start: called with the number of steps before the first step.
        on_step: called after each step.
        on_note: called with a line where `scratch` holds checkpoints of another training, which are set aside.

    Raises:
        InputError: a row is in no known format, every row is too long, the dtype is float16, or a single row does not
            fit into memory.
        DivergenceError: a loss or gradient is not finite; `scratch` keeps the last checkpoint before that.
    """
    from prosocial.training.tuning import tune_on_preferences, tune_on_replies

    from .encoding import encode_preferences, encode_replies

    read = pair_of if isinstance(tuning, PreferenceTuning) else reply_of
    given: list[Any] = [read(row, where=f"{rows} row {at}") for at, row in enumerate(read_rows(rows), start=1)]
    made_with = f"{fingerprint(base)} {hashlib.sha256(canonical_json(given).encode()).hexdigest()}"
    common: dict[str, Any] = {"out": out, "seed": seed, "placement": placement, "scratch": scratch, "on_note": on_note}
    common |= {"made_with": made_with, "on_step": on_step}
    if isinstance(tuning, PreferenceTuning):
        pairs, n_long = encode_preferences(given, base, max_tokens=tuning.max_tokens)
        on_start(n_steps := tuning.steps(len(pairs)))
        loss = tune_on_preferences(base, pairs, tuning=tuning, **common)
    else:
        replies, n_long = encode_replies(given, base, max_tokens=tuning.max_tokens)
        on_start(n_steps := tuning.steps(len(replies)))
        loss = tune_on_replies(base, replies, tuning=tuning, **common)
    summary = f"{len(given) - n_long} rows ({n_long} too long), {n_steps} steps, mean loss {loss:.3f}"
    return summary + _warm_up_note(n_steps, tuning.warmup_steps)


def _warm_up_note(n_steps: int, warmup_steps: int) -> str:
    """Return a note if a training ends within its warm-up, whose first update has a learning rate of 0."""
    if n_steps > warmup_steps:
        return ""
    return f"; the learning rate reached {(n_steps - 1) / warmup_steps:.0%} of its peak: lower warmup_steps"


def read_tuning(method: str, overrides: Sequence[str]) -> Tuning:
    """Return the settings of a training, changed by overrides such as `learning_rate=1e-6`.

    Raises:
        UnknownNameError: the method is neither `sft` nor `dpo`.
        InputError: a setting does not exist, or its value is invalid.

    Examples:
        >>> read_tuning("sft", ["epochs=2"]).epochs
        2.0
    """
    if method not in SETTINGS:
        raise UnknownNameError("method", method, SETTINGS)
    model = SETTINGS[method]
    given = apply_overrides({}, overrides)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InputError(describe(error, recipe=given, model=model)) from None
