"""Engines without a model: a table of next tokens, and scores drawn from the text so far."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prosocial.core.chat import ChatTokenizer
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import ControlArrays
from prosocial.steering.decoding.engine import Decision

END = 1
N_CATEGORIES = 3
PIECES = ["b", "o", "m", "bo", "mb", "omb", " ", "B", " bomb", "é", "Ⓑ", "st", "top", "a", "."]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def numbered(number: int) -> list[dict[str, str]]:
    """A conversation of its own for every number, in words that the tokenizer over bytes knows."""
    return user(".".join("bBoam"[int(digit)] for digit in np.base_repr(number, 5)))


def start_of(tokenizer: ChatTokenizer, messages: Any) -> int:
    return tokenizer.encode_chat(messages)[-1]


@dataclass
class TableEngine:
    """A language model given as a table: scores of the next tokens by the last token; some tokens are dead ends."""

    table: dict[int, dict[int, float]]
    config: DecodingConfig | None
    context_length: int | None = None
    vocabulary_size: int = 200

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "TableStream":
        return TableStream(self, ids[:, -1])


class TableStream:
    def __init__(self, engine: TableEngine, last: NDArray[np.int64]) -> None:
        self.engine = engine
        self.step(last)

    def step(self, tokens: NDArray[np.int64]) -> None:
        logits = np.full((len(tokens), self.engine.vocabulary_size), -np.inf, np.float32)
        for row, token in enumerate(tokens):
            for following, score in self.engine.table.get(int(token), {END: 0.0}).items():
                logits[row, following] = score
        dead = [int(token) in self.engine.table and not self.engine.table[int(token)] for token in tokens]
        size = np.where(dead, 0, np.isfinite(logits).sum(-1))
        self.decision = Decision(logits, np.full((len(tokens), N_CATEGORIES), 0.25, np.float32), size)

    def keep(self, rows: NDArray[np.intp]) -> None:
        pass


@dataclass
class HashEngine:
    """Scores that hang on the whole row; a share of all rows is a dead end.

    `n_alive` counts the caches that were not freed yet.
    """

    config: DecodingConfig | None
    n_tokens: int
    share_dead: float = 0.0
    context_length: int | None = None
    vocabulary_size: int = 1 << 20
    alive: list[int] = field(default_factory=lambda: [0])
    n_steps: int = 0

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "HashStream":
        return HashStream(self, ids)


class HashStream:
    def __init__(self, engine: HashEngine, ids: NDArray[np.int64]) -> None:
        self.engine, self.ids, self.alive = engine, ids, engine.alive
        self.alive[0] += 1
        self._decide()

    def __del__(self) -> None:
        self.alive[0] -= 1

    def step(self, tokens: NDArray[np.int64]) -> None:
        self.ids = np.concatenate([self.ids, tokens[:, None]], 1)
        self._decide()

    def keep(self, rows: NDArray[np.intp]) -> None:
        self.ids = self.ids[rows]

    def _decide(self) -> None:
        self.engine.n_steps += 1
        logits = np.full((len(self.ids), self.engine.n_tokens), -np.inf, np.float32)
        sizes = np.full(len(self.ids), self.engine.n_tokens)
        for at, row in enumerate(self.ids):
            rng = np.random.default_rng(int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little"))
            logits[at, END:] = rng.normal(size=self.engine.n_tokens - END)
            logits[at, END] -= 1.0
            if rng.random() < self.engine.share_dead:
                logits[at], sizes[at] = -np.inf, 0
                logits[at, END] = 0.0
        self.decision = Decision(logits, np.zeros((len(self.ids), N_CATEGORIES), np.float32), sizes)


def write_byte_tokenizer(folder: Path, pieces: Sequence[str] = PIECES) -> int:
    """Write a tokenizer over bytes whose tokens are some pieces of text and all of their bytes; return how many."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole = [level.pre_tokenize_str(piece)[0][0] for piece in pieces]
    words = ["<s>", "</s>", "<unk>", *dict.fromkeys([*sorted(set("".join(whole))), *whole])]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = level, decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("<s>{% for m in messages %}{{ m['content'] }}{% endfor %}")
    return len(words)
