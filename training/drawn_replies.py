"""Replies that a steered model draws for its own training, kept on disk so that a killed drawing continues."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.files import canonical_json, read_jsonl, write_jsonl
from prosocial.core.protocols import Message
from prosocial.steering.decoding.batch_size import replies_at_once
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.steered_model import SteeredModel

from .reply_sampling import ReplySampling
from .reply_states import parameter_digest

CHUNK_BATCHES = 8  # of replies, after which they are written


@dataclass(frozen=True)
class DrawnReply:
    """A reply that was drawn.

    Attributes:
        text: its text.
        token_ids: its tokens, without an end token.
        finish: why it ended.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: str


def draw_replies(
    steered: SteeredModel,
    prompts: Sequence[Sequence[Message]],
    tokenizer: ChatTokenizer,
    *,
    steering: Sequence[Steering] | None = None,
    sampling: ReplySampling,
    seed: int,
    folder: Path | None = None,
) -> list[DrawnReply]:
    """Draw one reply to each prompt, in batches that fit into memory.

    Args:
        steered: the model. tokenizer: of the model.
        prompts: conversations. steering: controls for each of them; None: the model's own.
        sampling: how the replies are drawn. seed: of their noise.
        folder: where replies of an earlier process are, and new ones are kept; None keeps none.
    """
    config = steered.backbone.model.config.to_dict()
    longest = max(len(tokenizer.encode_chat(messages)) for messages in prompts)
    batch_size = replies_at_once(config, longest + sampling.max_new_tokens)
    key = {"model": parameter_digest(steered), "seed": seed, **sampling.model_dump()}
    key |= {"prompts": list(map(list, prompts)), "steering": None if steering is None else list(map(repr, steering))}
    path = None if folder is None else folder / "drawn.jsonl"
    drawn = _kept(path, key)
    for start in range(len(drawn), len(prompts), CHUNK_BATCHES * batch_size):
        part = slice(start, start + CHUNK_BATCHES * batch_size)
        replies = steered.generate(
            prompts[part],
            tokenizer,
            steering=None if steering is None else steering[part],
            **sampling.model_dump(),
            seed=seed,
            row_keys=[str(start + index) for index in range(len(prompts[part]))],
            batch_size=batch_size,
            pad=True,
        )
        drawn += [DrawnReply(reply.text, tuple(reply.token_ids), reply.finish) for reply in replies]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, [{"key": canonical_json(key)}, *map(asdict, drawn)])
    return drawn


def _kept(path: Path | None, key: dict[str, Any]) -> list[DrawnReply]:
    """Return the replies that a file holds for a key."""
    if path is None or not path.is_file():
        return []
    first, *rows = read_jsonl(path)
    if first != {"key": canonical_json(key)}:
        return []
    return [DrawnReply(row["text"], tuple(row["token_ids"]), row["finish"]) for row in rows]
