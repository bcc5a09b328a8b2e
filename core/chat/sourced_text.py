# ruff: noqa: D102 (the methods are those of str)
"""Text that knows where each of its characters came from, through everything that a chat template does with it.

A template cuts, trims, compares and joins what callers write. `SourcedText` is a `str` that carries the source of each
character along: written by the template, or taken from a message. Whatever loses the source gives a plain `str`, whose
characters count as written by nobody. Such characters are never trusted, so an operation that is missing here can cost
a control token of the template, but never let a caller write one.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, Self, SupportsIndex

from jinja2 import TemplateError

UNKNOWN, TEMPLATE, FIRST_MESSAGE = "\0", "\1", 2  # sources; the source of message i is chr(FIRST_MESSAGE + i)
LONGEST = 8_000_000  # characters of any text inside a template
MAX_PIECES = 200_000  # that a text can be cut into
LONG_NUMBER = re.compile(r"\d{5}|\*")  # a width in a format, which could ask for gigabytes
PLACEHOLDER = re.compile(r"(%%|%s)")


class SourcedText(str):
    """A text with the source of each character.

    Attributes:
        sources: as long as the text; `UNKNOWN`, `TEMPLATE` or the source of a message at each character.

    Examples:
        >>> text = SourcedText.of("<|user|>", TEMPLATE) + SourcedText.of(" hi ", "m").strip()
        >>> text, text.sources.count(TEMPLATE), text.sources[-2:]
        ('<|user|>hi', 8, 'mm')
    """

    _sources: str

    @classmethod
    def of(cls, text: str, source: str) -> Self:
        """Return a text whose characters all have one source."""
        return cls._made(text, source * len(text))

    @classmethod
    def _made(cls, text: str, sources: str) -> Self:
        made = cls(text)
        made._sources = sources
        return made

    def __new__(cls, text: object = "") -> Self:
        """Return a text; the characters of a plain `str` have no known source."""
        made = str.__new__(cls, text)
        if len(made) > LONGEST:
            raise TemplateError(f"a text should have at most {LONGEST} characters, one has {len(made)}")
        made._sources = sources_of(text) if isinstance(text, str) else UNKNOWN * len(made)
        return made

    @property
    def sources(self) -> str:
        """The source of each character."""
        return self._sources

    @property
    def source(self) -> str:
        """The source of all characters if it is the same; else unknown."""
        return self._sources[:1] if self._sources == self._sources[:1] * len(self) else UNKNOWN

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> "SourcedText":
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "SourcedText":
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, n: SupportsIndex) -> "SourcedText":
        require_room(len(self) * int(n))
        return self._made(str.__mul__(self, n), self._sources * int(n))

    __rmul__ = __mul__

    def __getitem__(self, at: SupportsIndex | slice) -> "SourcedText":
        return self._made(str.__getitem__(self, at), self._sources[at])

    def __iter__(self) -> "Iterator[SourcedText]":
        _require_pieces(len(self))
        return (self[at] for at in range(len(self)))

    def __mod__(self, values: Any) -> str:
        if LONG_NUMBER.search(self):
            raise TemplateError("a format should have no width of five digits or more")
        parts = PLACEHOLDER.split(self)
        given = values if isinstance(values, tuple) else (values,)
        if self.source == UNKNOWN or "%" in "".join(parts[::2]) or len(given) != parts.count("%s"):
            return str.__mod__(self, values)
        rest = iter(given)
        return joined(
            str(next(rest)) if part == "%s" else self.of("%" if part == "%%" else part, self.source) for part in parts
        )

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[SourcedText]":  # type: ignore[override]
        return self._pieces(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[SourcedText]":  # type: ignore[override]
        return self._pieces(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> "list[SourcedText]":  # type: ignore[override]
        lines = self._pieces(str.splitlines(self, True), "")
        return lines if keepends else [line[: len(str.splitlines(line)[0])] for line in lines]

    def partition(self, sep: str) -> "tuple[SourcedText, SourcedText, SourcedText]":
        first, middle, last = self._pieces(str.partition(self, sep), "")
        return first, middle, last

    def rpartition(self, sep: str) -> "tuple[SourcedText, SourcedText, SourcedText]":
        first, middle, last = self._pieces(str.rpartition(self, sep), "")
        return first, middle, last

    def _pieces(self, pieces: Sequence[str], sep: str | None) -> "list[SourcedText]":
        """Return pieces of this text with their sources; `sep` stands between them, None for white space."""
        _require_pieces(len(pieces))
        sourced, at = [], 0
        for piece in pieces:
            if sep is None:
                at = str.index(self, piece, at)
            sourced.append(self[at : at + len(piece)])
            at += len(piece) + len(sep or "")
        return sourced

    def strip(self, chars: str | None = None) -> "SourcedText":
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> "SourcedText":
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> "SourcedText":
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str, /) -> "SourcedText":
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> "SourcedText":
        return self[: len(str.removesuffix(self, suffix))]

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        n_places = str.count(self, old)
        require_room(len(self) + n_places * len(new))
        if not old:
            return str.replace(self, old, new, count)
        _require_pieces(n_places)
        return SourcedText(new).join(self.split(old, count))

    def join(self, parts: Iterable[str], /) -> "SourcedText":
        listed: list[str] = []
        for part in parts:
            if not isinstance(part, str):
                raise TypeError(f"join should be given texts, got {type(part).__name__}")
            listed += [self, part] if listed else [part]
        return joined(listed)

    def upper(self) -> str:
        return self._recased(str.upper(self))

    def lower(self) -> str:
        return self._recased(str.lower(self))

    def title(self) -> str:
        return self._recased(str.title(self))

    def capitalize(self) -> str:
        return self._recased(str.capitalize(self))

    def casefold(self) -> str:
        return self._recased(str.casefold(self))

    def swapcase(self) -> str:
        return self._recased(str.swapcase(self))

    def _recased(self, text: str) -> str:
        return self._made(text, self._sources) if len(text) == len(self) else self.of(text, self.source)

    def formatted(self, formatter: Formatter, args: tuple[Any, ...], values: Mapping[str, Any]) -> str:
        """Return `self.format(*args, **values)` by way of the sandbox's formatter."""
        fields = list(formatter.parse(self))
        if any(LONG_NUMBER.search(spec or "") or "{" in (spec or "") for _, _, spec, _ in fields):
            raise TemplateError("a format should have no width of five digits or more, and none from a value")
        parts: list[str] = []
        unnamed = iter(range(len(fields)))
        for literal, name, spec, conversion in fields:
            parts.append(self.of(literal, self.source))
            if name is not None:
                name = name if name and name[0] not in ".[" else f"{next(unnamed)}{name}"
                value, _ = formatter.get_field(name, args, values)
                is_text = isinstance(value, str) and not spec and not conversion
                parts.append(
                    value if is_text else formatter.format_field(formatter.convert_field(value, conversion), spec or "")
                )
        return joined(parts)


def sources_of(text: str) -> str:
    """Return the source of each character; unknown for a plain `str`."""
    return text._sources if isinstance(text, SourcedText) else UNKNOWN * len(text)


def joined(parts: Iterable[str]) -> SourcedText:
    """Return texts one after the other."""
    texts = list(parts)
    require_room(sum(map(len, texts)))
    return SourcedText._made("".join(texts), "".join(map(sources_of, texts)))


def require_room(n_characters: int) -> None:
    """Refuse a text that is too long before it is built."""
    if n_characters > LONGEST:
        raise TemplateError(f"a text should have at most {LONGEST} characters, one would have {n_characters}")


def _require_pieces(n_pieces: int) -> None:
    if n_pieces > MAX_PIECES:
        raise TemplateError(f"a text should be cut into at most {MAX_PIECES} pieces, not into {n_pieces}")


def mapped_texts(value: Any, convert: Callable[[str], str]) -> Any:
    """Return JSON data, or a constant of a template, with each text converted; keys included.

    Examples:
        >>> mapped_texts({"a": ["b", 1]}, str.upper)
        {'A': ['B', 1]}
    """
    if isinstance(value, str):
        return convert(value)
    if isinstance(value, Mapping):
        return {mapped_texts(key, convert): mapped_texts(item, convert) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped_texts(item, convert) for item in value)
    return value
