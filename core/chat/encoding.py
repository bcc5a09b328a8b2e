"""Token ids of a text whose characters know their source: callers never write a control token.

A text is encoded as a whole with added tokens active, which gives the ids of transformers. Where a control token
touches a character that the template did not write, it is encoded again by a second tokenizer, in which each control
token has an unguessable name: that name stands only where the template wrote the token, and all else is ordinary text.
Neither tokenizer changes after it was made, so that threads can share them.
"""

import json
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ..errors import ArtefactError, InputError
from .sourced_text import TEMPLATE, SourcedText
from .special_tokens import MOST_IDS, named_tokens, tokens_to_add

STAND_INS = "ꙮꙬꙪꔀꕀꖀ"  # letters that stand for callers' letters; rare ones, of which no added token has all
OTHER_STAND_INS = "\ue000\ue001\ue002\ue003\uf8fe\uf8ff"  # and for what is no letter
MAX_ROUNDS = 8
RUNS = re.compile(f"{TEMPLATE}+|[^{TEMPLATE}]+", re.DOTALL)  # of characters of the template, or of others

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class ControlToken:
    """A control token in a text.

    Attributes:
        id: its token id.
        start, end: its characters, without white space that it takes in from beside it.
    """

    id: int
    start: int
    end: int


class SourcedEncoder:
    """Encodes texts of known sources.

    Args:
        folder: the model folder.
        config: result of `tokenizer_config`.

    Attributes:
        tokenizer: the tokenizer with added tokens active.
        control: each added token except those of white space and the unknown-word token, by id.

    Raises:
        ArtefactError: the file is no tokenizer of the tokenizers library.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.tokenizer = open_tokenizer(folder / "tokenizer.json")
        present = {index: token.content for index, token in self.tokenizer.get_added_tokens_decoder().items()}
        self.tokenizer.add_tokens(tokens_to_add(config, folder, present))
        self._unknown = named_tokens(config).get("unk_token")
        added = self.tokenizer.get_added_tokens_decoder()
        visible = {index: token for index, token in added.items() if token.content.strip()}
        self.control: Mapping[int, AddedToken] = {
            index: token for index, token in visible.items() if token.content != self._unknown
        }
        self._watched = visible
        normalizes = self.tokenizer.normalizer is not None
        self._can_be_hidden = any(
            token.single_word or (token.normalized and normalizes) for token in self.control.values()
        )
        used = {character for token in added.values() for character in token.content}
        self._letter, self._other = (
            next(character for character in choice if character not in used) for choice in (STAND_INS, OTHER_STAND_INS)
        )
        self._prefix, self._suffix = f"{self._other}{secrets.token_hex(12)}:", self._other
        self._text_tokenizer = self._renamed(added, visible)
        self._original = {
            self._text_tokenizer.token_to_id(self._name(index) if index in visible else token.content): index
            for index, token in added.items()
        }
        self._break = self._name(-1)
        self._break_id = self._text_tokenizer.token_to_id(self._break)

    def encode(self, text: SourcedText) -> list[int]:
        """Return the token ids of a text; control tokens arise only from characters of the template.

        Raises:
            InputError: the text would still give a control token.
        """
        plain = str.__str__(text)
        ids, written = self._encoded(plain)
        is_own = all(self._is_own(token, text.sources) for token in written)
        if is_own and not self._can_be_hidden:
            return ids
        own = self.control_tokens(text)
        if is_own and [token.id for token in own] == [token.id for token in written]:
            return ids
        pieces, at = [], 0
        for token in own:
            pieces += [plain[at : token.start], self._name(token.id)]
            at = token.end
        return self.encode_text("".join([*pieces, plain[at:]]))[0]

    def encode_text(self, text: str) -> tuple[list[int], Offsets]:
        """Return the token ids of plain text and the range of characters (half open) of each token.

        Raises:
            InputError: the text would give a control token, because the tokenizer knows it as a word.
        """
        breaks: list[int] = []  # where a word that is a control token is broken in two
        for _ in range(MAX_ROUNDS):
            encoding = self._text_tokenizer.encode(_with_breaks(text, breaks, self._break), add_special_tokens=False)
            ids, offsets = encoding.ids, encoding.offsets
            if breaks:
                offsets = _unbroken(offsets, breaks, len(self._break))
            own = self._original  # the names of the second tokenizer
            words = [offsets[at] for at, index in enumerate(ids) if index in self.control and index not in own]
            if not words:
                kept = [at for at, index in enumerate(ids) if index != self._break_id]
                return [own.get(ids[at], ids[at]) for at in kept], [offsets[at] for at in kept]
            if any(end - start < 2 for start, end in words):
                break
            breaks = sorted({*breaks, *(start + 1 for start, _ in words)})
        raise InputError(
            "a text should hold no control token, found one that this tokenizer cannot encode as plain text: remove it"
        )

    def control_tokens(self, text: SourcedText) -> list[ControlToken]:
        """Return the control tokens that the template wrote, whatever stands beside them.

        Raises:
            InputError: a control token cannot be told from a caller's text.
        """
        neutral, moves = self._neutral(text)
        _, tokens = self._encoded(neutral)
        own = []
        for token in tokens:
            by = moves[bisect_right(moves, (token.start, len(text))) - 1][1]
            own.append(ControlToken(token.id, token.start + by, token.end + by))
        if not all(self._is_own(token, text.sources) for token in own):
            raise InputError("the conversation should keep apart the template's control tokens and texts: change it")
        return own

    def _encoded(self, text: str) -> tuple[list[int], list[ControlToken]]:
        """Return the token ids of a text with added tokens active, and the control tokens among them."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids = encoding.ids
        if self._watched.keys().isdisjoint(ids):
            return ids, []
        places = [(index, place) for index, place in zip(ids, encoding.offsets, strict=True) if index in self._watched]
        tokens = [self._control_token(text, index, *place) for index, place in places]
        return ids, [token for token in tokens if token is not None]

    def _control_token(self, text: str, index: int, start: int, end: int) -> ControlToken | None:
        token = self._watched[index]
        if token.lstrip or token.normalized:  # a normalised one can begin with a white space sign
            start += len(text[start:end]) - len(text[start:end].lstrip())
        if token.rstrip:
            end = start + len(text[start:end].rstrip())
        is_word = token.content == self._unknown and token.content not in text[start:end]  # one that is not known
        return None if is_word else ControlToken(index, start, end)

    def _neutral(self, text: SourcedText) -> tuple[str, list[tuple[int, int]]]:
        """Return the text with what callers wrote replaced by characters that no added token has.

        White space beside it stays. The second result maps places back: from the first number on, add the second one.
        """
        pieces: list[str] = []
        moves, length = [(0, 0)], 0
        for run in RUNS.finditer(text.sources):
            piece = str.__getitem__(text, slice(*run.span()))
            if run.group()[0] != TEMPLATE and (inner := piece.strip()):
                start = piece.index(inner)
                ends = (self._letter if end.isalnum() or end == "_" else self._other for end in (inner[0], inner[-1]))
                piece = piece[:start] + "".join(ends) + piece[start + len(inner) :]
            moves.append((length, run.start() - length))
            pieces.append(piece)
            length += len(piece)
        return "".join(pieces), moves

    @staticmethod
    def _is_own(token: ControlToken, sources: str) -> bool:
        return token.end > token.start and set(sources[token.start : token.end]) == {TEMPLATE}

    def _name(self, index: int) -> str:
        return f"{self._prefix}{index}{self._suffix}"

    def _renamed(self, added: Mapping[int, AddedToken], visible: Mapping[int, AddedToken]) -> Tokenizer:
        """Return a tokenizer that knows each visible added token under its unguessable name only."""
        data = json.loads(self.tokenizer.to_str())
        data["added_tokens"], data["post_processor"] = [], None
        renamed = Tokenizer.from_str(json.dumps(data))
        renamed.add_tokens([token for index, token in added.items() if index not in visible])
        renamed.add_special_tokens(
            [
                AddedToken(self._name(index), lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=True)
                for index, token in visible.items()
            ]
            + [AddedToken(self._name(-1), normalized=False, special=True)]
        )
        return renamed


def open_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a file, without padding and truncation.

    Raises:
        ArtefactError: an id is 2**24 or more (the library keeps a list of all ids below the largest one when it copies
            a tokenizer).
        Exception: the file is no tokenizer of the tokenizers library, see `read_as`.
    """
    tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= MOST_IDS:
        raise ArtefactError(
            f"{path} should have token ids below {MOST_IDS}, found {largest}: download or save it again"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _with_breaks(text: str, places: list[int], name: str) -> str:
    edges = [0, *places, len(text)]
    return name.join(text[start:end] for start, end in pairwise(edges))


def _unbroken(offsets: Offsets, places: list[int], width: int) -> Offsets:
    """Return ranges of characters of a text with names of this width put in, as ranges of the text without them."""
    starts = [position + n * width for n, position in enumerate(places)]

    def before(at: int) -> int:
        n = bisect_left(starts, at)
        return max(at - n * width, places[n - 1]) if n else at

    return [(before(start), before(end)) for start, end in offsets]
