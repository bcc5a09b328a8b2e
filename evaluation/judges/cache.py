"""Judgements kept on disk, so that a comparison that was killed does not ask a slow judge twice."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.files import canonical_json
from prosocial.core.protocols import Judge, Judgement, Message


class CachedJudge:
    """A judge that remembers what it said, by name, version, conversation and reply; failures are asked again.

    Args:
        judge: says what is not known yet.
        path: the JSONL that judgements are added to, each as soon as it is there. It holds digests, no text.
    """

    def __init__(self, judge: Judge, path: Path) -> None:
        self.name, self.version = judge.name, judge.version
        self._judge, self._file = judge, AppendedRows(path)
        self._known = {row["key"]: _from_json(row["judgement"]) for row in self._file.rows}

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply, from the file where it is known."""
        asked = canonical_json([self.name, self.version, list(messages), reply])
        key = hashlib.sha256(asked.encode()).hexdigest()
        if key not in self._known:
            found = self._judge.judge(messages, reply)
            if found.error is not None:
                return found
            self._known[key] = found
            self._file.append({"key": key, "judgement": _to_json(found)})
        return self._known[key]


def _to_json(judgement: Judgement) -> dict[str, Any]:
    return asdict(judgement) | {"categories": sorted(judgement.categories)}


def _from_json(row: dict[str, Any]) -> Judgement:
    spans = tuple((start, end) for start, end in row["harmful_spans"])
    return Judgement(**row | {"categories": frozenset(row["categories"]), "harmful_spans": spans})
