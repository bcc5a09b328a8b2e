"""Shared parts of training with TRL: arguments, checkpoints, and an error when numbers are no longer finite."""

import contextlib
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prosocial.core.chat import TOKENIZER_FILES
from prosocial.core.errors import DivergenceError, InputError, MissingExtraError
from prosocial.core.files import canonical_json, link_or_copy, new_folder, read_json, write_json

from .settings import LoraShape, Tuning

STATE_FILE = "trainer_state.json"  # written last: a checkpoint without it is incomplete
MADE_WITH_FILE = "made_with.json"
SCHEMA = "prosocial.tuning/1"


def import_trl() -> Any:
    """Import TRL with telemetry turned off.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        import trl
    except ImportError:
        raise MissingExtraError("trl", "train") from None
    return trl


def lora_config(shape: LoraShape) -> Any:
    """Return the peft config of a LoRA adapter."""
    from peft import LoraConfig

    targets = shape.targets if isinstance(shape.targets, str) else list(shape.targets)
    return LoraConfig(r=shape.rank, lora_alpha=shape.alpha, target_modules=targets, task_type="CAUSAL_LM")


def arguments(kind: Any, tuning: Tuning, folder: Path, *, n_rows: int, seed: int, **more: Any) -> Any:
    """Return TRL's training arguments.

    Args:
        kind: TRL's class of arguments, `SFTConfig` or `DPOConfig`.
        tuning: the settings.
        folder: folder for training checkpoints.
        n_rows: number of training rows.
        seed: seed of the training.
        more: further arguments of `kind`.
    """
    return kind(
        output_dir=str(folder),
        max_steps=tuning.steps(n_rows),
        per_device_train_batch_size=tuning.batch_size,
        gradient_accumulation_steps=tuning.accumulation,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type=tuning.schedule,
        warmup_steps=tuning.warmup_steps,
        optim=tuning.optimizer,
        max_grad_norm=tuning.max_gradient_norm,
        max_length=tuning.max_tokens,
        save_strategy="steps",
        save_steps=tuning.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the filter would replace a loss that is not finite by the last finite one
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        bf16=tuning.bf16,
        dataloader_pin_memory=False,
        **more,
    )


@contextlib.contextmanager
def checkpoints(folder: Path | None, made_with: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder for checkpoints: `folder`, new or left by an interrupted training, or a temporary one for None.

    Raises:
        InputError: `folder` holds checkpoints of a training with another `made_with`.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"schema": SCHEMA} | json.loads(canonical_json(made_with))
    path = folder / MADE_WITH_FILE
    if not path.is_file():
        write_json(path, wanted)
    elif read_json(path, schema=SCHEMA) != wanted:
        raise InputError(
            f"{folder} should hold checkpoints of this training, found those of another: choose a new folder"
        )
    yield folder


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, or None."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # not written to its end
            complete.append((int(json.loads((path / STATE_FILE).read_text())["global_step"]), path))
    return max(complete)[1] if complete else None


def train(trainer: Any, folder: Path, on_step: Callable[[], None]) -> float:
    """Train from the newest checkpoint in `folder`, or from the start, and return the mean loss of the steps taken.

    Args:
        trainer: a trainer of a class of `resumable`.
        folder: folder of training checkpoints.
        on_step: called after every step, including those before a resumed checkpoint.

    Raises:
        InputError: the newest checkpoint has a pickle, or another state than this training's.
        DivergenceError: a loss or gradient is not finite; the last finite checkpoint is kept.
    """
    from transformers import PrinterCallback

    from .resuming import require_no_pickle

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_watch(folder, on_step))
    last = newest_checkpoint(folder)
    if last and not trainer.is_sharded:
        require_no_pickle(last)
    with quiet_trl():
        result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return float(result.training_loss)


def save(trainer: Any, out: Path, *, tokenizer_from: Path) -> None:
    """Write the tuned model, with any adapter merged, as a checkpoint with the tokenizer of `tokenizer_from`.

    Only the main process writes; the others wait for it.
    """
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        with new_folder(out) as folder:
            model.save_pretrained(str(folder))
            for name in TOKENIZER_FILES:
                if (tokenizer_from / name).is_file():
                    link_or_copy(tokenizer_from / name, folder / name)
    trainer.accelerator.wait_for_everyone()


@contextlib.contextmanager
def quiet_trl() -> Iterator[None]:
    """Hide the progress bars of `datasets`, and FutureWarnings for renamed transformers options that TRL still sets."""
    import datasets

    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def step_callback(on_step: Callable[[], None]) -> Any:
    """Return a trainer callback that calls `on_step` after every step."""
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_step_end(self, *given: Any, **rest: Any) -> None:
            on_step()

    return StepCallback()


def _watch(folder: Path, on_step: Callable[[], None]) -> Any:
    """Return a trainer callback that counts steps, and raises before a state that is not finite is saved."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            for _ in range(state.global_step):
                on_step()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            on_step()
            if control.should_save and not _is_finite(model):
                raise DivergenceError(_divergence("every weight", math.nan, state.global_step, folder))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            for name in ("loss", "grad_norm"):
                value = float((logs or {}).get(name, 0.0))
                if not math.isfinite(value):
                    raise DivergenceError(_divergence(name, value, state.global_step, folder))

    return Watch()


def _is_finite(model: Any) -> bool:
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)


def _divergence(name: str, value: float, step: int, folder: Path) -> str:
    last = newest_checkpoint(folder)
    kept = f"{last} is kept" if last else "there is no earlier checkpoint"
    return f"{name} should be finite, found {value} in step {step}; {kept}: try a lower learning rate"
