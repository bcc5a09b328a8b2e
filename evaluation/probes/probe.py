"""Probes: the requests used to evaluate a model, with their annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosocial.core.conversations import conversation_of
from prosocial.core.errors import InputError
from prosocial.core.files import read_lines, write_jsonl
from prosocial.core.protocols import Message

KINDS = ("harmful", "twin", "benign", "disclosure", "false_premise", "attack")
_TEXT_KEYS = ("category", "cluster", "twin_of", "prefill", "attack")


@dataclass(frozen=True)
class Probe:
    """One request and its annotations.

    Attributes:
        id: unique within a set.
        messages: conversation up to the reply, each `{"role", "content"}`.
        kind: what the probe tests: `harmful` (should be declined), `twin` (harmless, but looks harmful), `benign`,
            `disclosure` (the user discloses distress), `false_premise`, `attack` (a disguised harmful request), or any
            other word.
        category: harm category that a harmful reply would fall into.
        cluster: topic; probes of one cluster are not independent. Default: `twin_of`, otherwise the probe's id.
        twin_of: id of the harmful probe that this one resembles.
        prefill: start of the reply, forced by an attacker.
        attack: name of the attack, if the probe is one.
        extra: any further fields of the probe's line.

    >>> Probe("p1", ({"role": "user", "content": "How do I tie a bowline?"},), "benign").cluster
    'p1'
    """

    id: str
    messages: tuple[Message, ...]
    kind: str
    category: str | None = None
    cluster: str = ""
    twin_of: str | None = None
    prefill: str = ""
    attack: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        object.__setattr__(self, "cluster", self.cluster or self.twin_of or self.id)

    @property
    def text(self) -> str:
        """The last user message."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON row that `read_probes` reads back into an equal probe."""
        row: dict[str, Any] = {"id": self.id, "messages": list(self.messages), "kind": self.kind}
        row |= {key: getattr(self, key) for key in _TEXT_KEYS if getattr(self, key)}
        return row | {key: value for key, value in self.extra.items() if key not in row}


def read_probes(path: Path | str) -> list[Probe]:
    """Read probes from JSONL, one object per line with `id`, `kind`, `text` or `messages`, and any other fields.

    Raises:
        InputError: the file is missing or empty, a line lacks a key or has a value of a wrong type, or an id occurs
            twice; the message names the line.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "probes.jsonl"
        >>> _ = path.write_text('{"id": "p1", "kind": "benign", "text": "How do I tie a bowline?"}')
        >>> read_probes(path)[0].text
        'How do I tie a bowline?'
    """
    path = Path(path)
    probes: list[Probe] = []
    seen: dict[str, int] = {}
    for line, row in read_lines(path).items():
        probe = _probe(row, where=f"{path} line {line}")
        if probe.id in seen:
            raise InputError(
                f"{path} line {line} should have its own id, found {probe.id!r} of line {seen[probe.id]}: rename one"
            )
        seen[probe.id] = line
        probes.append(probe)
    return probes


def write_probes(path: Path | str, probes: Sequence[Probe]) -> None:
    """Write probes as JSONL, one object per line.

    Raises:
        StorageError: the file cannot be written.
    """
    write_jsonl(Path(path), [probe.to_json() for probe in probes])


def _probe(row: dict[str, Any], *, where: str) -> Probe:
    for key in ("id", "kind"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise InputError(f"{where} should have a nonempty string {key!r}, found {row.get(key)!r}")
    texts = {key: row[key] for key in _TEXT_KEYS if row.get(key) is not None}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{where} should have a string or nothing as {key!r}, found {value!r:.80}")
    known = {"id", "kind", "text", "messages", *_TEXT_KEYS}
    extra = {key: value for key, value in row.items() if key not in known}
    return Probe(id=row["id"], messages=_messages(row, where=where), kind=row["kind"], extra=extra, **texts)


def _messages(row: dict[str, Any], *, where: str) -> tuple[Message, ...]:
    text, messages = row.get("text"), row.get("messages")
    if (text is None) == (messages is None):
        raise InputError(f"{where} should have either 'text' or 'messages', found {sorted(row)}")
    given = [{"role": "user", "content": text}] if messages is None else messages
    return conversation_of(given, where=f"{where}: {'text' if messages is None else 'messages'}")
