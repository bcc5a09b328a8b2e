"""What several stages do with a model: open it, take prompts, sample replies."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prosocial.core.placement import Placement
from prosocial.core.protocols import Message
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import prompt_of

from ..workflow.stage import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 256


def open_model(folder: Path, placement: Placement) -> "PreTrainedModel":
    """Load a checkpoint onto a device, in a dtype."""
    from prosocial.editing.checkpoints import load_model

    return load_model(folder, dtype=placement.torch_dtype, device=placement.device)


def training_prompts(path: Path, count: int) -> list[tuple[Message, ...]]:
    """Return the first `count` conversations of a file of prompts."""
    rows = read_rows(path)[:count]
    return [prompt_of(row, where=f"{path.name} row {number}") for number, row in enumerate(rows, start=1)]


def sample_replies(
    context: StageContext, checkpoint: Path, prompts: Sequence[Sequence[Message]], *, seed: int
) -> list[str]:
    """Draw one reply per prompt from an unsteered checkpoint, with the stage's temperature and length."""
    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.decoding.loop import generate
    from prosocial.steering.torch_engine import PlainEngine

    engine, tokenizer = PlainEngine(open_model(checkpoint, context.placement)), ChatTokenizer(checkpoint)
    replies: list[str] = []
    chunk = 8 * BATCH_SIZE
    starts = range(0, len(prompts), chunk)
    for start in context.progress.track(starts, f"sample {len(prompts)} replies"):
        part = prompts[start : start + chunk]
        replies += [
            reply.text
            for reply in generate(
                engine,
                tokenizer,
                part,
                temperature=context.parameters["temperature"],
                max_new_tokens=context.parameters["max_new_tokens"],
                seed=seed,
                row_keys=[str(start + index) for index in range(len(part))],
                batch_size=BATCH_SIZE,
            )
        ]
    return replies
