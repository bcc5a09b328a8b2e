"""Shared parts of training: arguments, checkpoints, and an error when numbers are no longer finite."""

import contextlib
import importlib.util
import itertools
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.chat import TOKENIZER_FILES
from prosocial.core.errors import DivergenceError, InputError, MissingExtraError
from prosocial.core.files import canonical_json, link_or_copy, new_folder, read_json, write_json
from prosocial.core.placement import Placement

from .settings import LoraShape, Tuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

STATE_FILE = "trainer_state.json"  # written last: a checkpoint without it is incomplete
MADE_WITH_FILE = "made_with.json"
SCHEMA = "prosocial.tuning/1"
SECONDS_BETWEEN = 300.0  # checkpoints, of one process


def require_trainer() -> None:
    """Raise MissingExtraError where the trainer of transformers cannot run: accelerate is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")


def load_to_tune(base: Path, placement: Placement, tuning: Tuning) -> "PreTrainedModel":
    """Load a checkpoint to tune it.

    Processes that train together get the model on the CPU, and each moves it to its device; FSDP spreads weights in
    float32 and computes in the dtype that accelerate was launched with.

    Raises:
        InputError: the dtype is float16.
    """
    from prosocial.editing.checkpoints import load_model

    placement = tuning.placed(placement)
    if is_sharded():
        return load_model(base)
    return load_model(base, dtype=placement.torch_dtype, device="cpu" if is_launched() else placement.device)


def is_launched() -> bool:
    """Return whether this process is one of several, as under `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_sharded() -> bool:
    """Return whether `accelerate launch` asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def lora_config(shape: LoraShape) -> Any:
    """Return the peft config of a LoRA adapter."""
    from peft import LoraConfig

    targets = shape.targets if isinstance(shape.targets, str) else list(shape.targets)
    return LoraConfig(r=shape.rank, lora_alpha=shape.alpha, target_modules=targets, task_type="CAUSAL_LM")


def arguments(tuning: Tuning, folder: Path, *, n_rows: int, seed: int, device: "torch.device") -> Any:
    """Return the training arguments of transformers.

    Args:
        tuning: the settings.
        folder: folder for training checkpoints.
        n_rows: number of training rows.
        seed: seed of the training.
        device: device of the model; processes of `accelerate launch` have their own.
    """
    from accelerate.utils import patch_environment
    from transformers import TrainingArguments

    alone = not is_launched()
    with patch_environment(**({"ACCELERATE_TORCH_DEVICE": device} if alone and device.type != "cpu" else {})):
        args = TrainingArguments(
            output_dir=str(folder),
            max_steps=tuning.steps(n_rows),
            per_device_train_batch_size=tuning.batch_size * tuning.accumulation,
            learning_rate=tuning.learning_rate,
            lr_scheduler_type=tuning.schedule,
            warmup_steps=tuning.warmup_steps,
            optim=tuning.optimizer,
            max_grad_norm=tuning.max_gradient_norm,
            save_strategy="steps",
            save_steps=tuning.checkpoint_every,
            save_total_limit=2,
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would replace a loss that is not finite by the last finite one
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            report_to=[],
            disable_tqdm=True,
            seed=seed,
            use_cpu=alone and device.type == "cpu",
            dataloader_pin_memory=False,
            bf16=is_sharded() and os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16",
        )
        if not alone and args.world_size == 1:
            raise InputError("the processes that train together should see each other, they do not: launch with --cpu")
        if alone and args.device != device:  # transformers takes the first GPU, and all of them at once
            vars(args)["_setup_devices"], args._n_gpu = device, 1
    return args


@contextlib.contextmanager
def checkpoints(
    folder: Path | str | None, made_with: dict[str, Any], on_note: Callable[[str], None] = lambda note: None
) -> Iterator[Path]:
    """Yield a folder for checkpoints: `folder`, new or left by an interrupted training, or a temporary one for None.

    Checkpoints of a training with another `made_with` are set aside: their folder is renamed, and `on_note` is called.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder = Path(folder)
    path, wanted = folder / MADE_WITH_FILE, {"schema": SCHEMA} | json.loads(canonical_json(made_with))
    if os.environ.get("RANK", "0") == "0":
        if path.is_file() and _made_with(path) != wanted:
            aside = next(each for n in itertools.count(1) if not (each := _aside(folder, n)).exists())
            folder.rename(aside)
            on_note(f"checkpoints of a training with other settings or data were set aside: {aside}")
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_json(path, wanted)
    yield folder


def _made_with(path: Path) -> object:
    """Return what checkpoints were made with; None if the file is broken."""
    try:
        return read_json(path, schema=SCHEMA)
    except InputError:
        return None


def _aside(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}.set-aside-{number}")


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, or None."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # not written to its end
            step = int(json.loads((path / STATE_FILE).read_text())["global_step"])
            if _has_weights(path):
                complete.append((step, path))
    return max(complete)[1] if complete else None


def _has_weights(checkpoint: Path) -> bool:
    """Return whether weights and optimiser lie in a checkpoint: one that is being deleted may keep its state only."""
    from .resuming import OPTIMIZER

    names = [path.name for path in checkpoint.iterdir()]
    is_sharded = any(path.is_dir() or path.suffix == ".bin" for path in checkpoint.iterdir())
    return is_sharded or (OPTIMIZER in names and any(name.startswith(("model", "adapter_model")) for name in names))


def train(trainer: Any, folder: Path, on_step: Callable[[], None]) -> float:
    """Train from the newest checkpoint in `folder`, or from the start, and return the mean loss of the steps taken.

    Args:
        trainer: a `Tuner`.
        folder: folder of training checkpoints.
        on_step: called after every step, including those before a resumed checkpoint.

    Raises:
        InputError: the newest checkpoint has a pickle, or another state than this training's.
        DivergenceError: a loss or gradient is not finite; the last finite checkpoint is kept.
    """
    from transformers import PrinterCallback

    from .resuming import require_no_pickle

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_watch(folder, on_step, is_alone=not is_launched()))
    with trainer.args.main_process_first(local=False):
        last = newest_checkpoint(folder)
    if last and not trainer.is_sharded:
        require_no_pickle(last)
    with quiet():
        result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return float(result.training_loss)


def save(trainer: Any, out: Path, *, base: Path) -> None:
    """Write the tuned model, with any adapter merged, as a checkpoint with the tokenizer of the checkpoint `base`.

    Only the main process writes; the others wait for it.
    """
    model = trainer.trained_model(base)
    if model is not None:
        with new_folder(out) as folder:
            model.save_pretrained(str(folder))
            for name in TOKENIZER_FILES:
                if (base / name).is_file():
                    link_or_copy(base / name, folder / name)
    trainer.accelerator.wait_for_everyone()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings on renamed options that peft still reads, and on how old checkpoints are told from new ones."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)


def _watch(folder: Path, on_step: Callable[[], None], *, is_alone: bool) -> Any:
    """Return a trainer callback that counts steps, and raises before a state that is not finite is saved.

    One process also saves by the clock; several would save in different steps.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        saved = time.monotonic()

        def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.saved = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            for _ in range(state.global_step):
                on_step()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            on_step()
            control.should_save |= is_alone and time.monotonic() - self.saved > SECONDS_BETWEEN
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
