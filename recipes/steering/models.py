"""What several stages do with a model: open it, take prompts, sample replies."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.files import read_json
from prosocial.core.placement import Placement
from prosocial.core.protocols import Message
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import prompt_of
from prosocial.steering.decoding.batch_size import replies_at_once
from prosocial.training.reply_sampling import ReplySampling

from ..labelling.drawing import EndpointSampler, LocalSampler, draw_replies
from ..workflow.stage import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def open_model(folder: Path, placement: Placement) -> "PreTrainedModel":
    """Load a checkpoint onto a device, in a dtype."""
    from prosocial.editing.checkpoints import load_model

    return load_model(folder, dtype=placement.torch_dtype, device=placement.device)


def training_prompts(path: Path, count: int) -> list[tuple[Message, ...]]:
    """Return the first `count` conversations of a file of prompts."""
    rows = read_rows(path)[:count]
    return [prompt_of(row, where=f"{path.name} row {number}") for number, row in enumerate(rows, start=1)]


def sample_replies(
    context: StageContext, model: Literal["base", "edited"], prompts: Sequence[Sequence[Message]], *, seed: int
) -> list[str]:
    """Draw one reply per prompt from an unsteered model, with the stage's sampler, temperature and length.

    The replies are kept in the stage's scratch folder, so that a killed stage goes on with them.
    """
    parameters, checkpoint = context.parameters, context.inputs[model]
    sampling = ReplySampling(**{name: parameters[name] for name in ReplySampling.model_fields})
    server = (parameters.get("sampler") or {}).get(model)
    sampler = (
        LocalSampler(checkpoint, lambda folder: open_model(folder, context.placement), sampling)
        if server is None
        else EndpointSampler(ChatEndpoint.named(server.removeprefix("endpoint:"), timeout=600.0), sampling)
    )
    path = context.scratch / f"replies-{model}-{seed}.jsonl"
    return draw_replies(sampler, prompts, path=path, seed=seed, progress=context.progress)


def answers_at_once(folder: Path, n_tokens: int) -> int:
    """Return how many replies of at most `n_tokens`, with their prompts, a model decodes at once."""
    return replies_at_once(read_json(folder / "config.json", finite=False), n_tokens)
