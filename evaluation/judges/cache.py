"""Judgements cached on disk, so that an interrupted comparison does not repeat calls to a slow judge."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.files import canonical_json
from prosocial.core.protocols import Judge, Judgement, Message


class CachedJudge:
    """A judge that caches judgements by judge name, version, conversation and reply; failed judgements are retried.

    Args:
        judge: judge to call for replies that are not in the cache.
        path: JSONL file that each judgement is appended to at once; it contains digests, not texts.
    """

    def __init__(self, judge: Judge, path: Path) -> None:
        self.name, self.version = judge.name, judge.version
        self._judge, self._file = judge, AppendedRows(path)
        self._known = {row["key"]: _from_json(row["judgement"]) for row in self._file.rows}

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply, or return the cached judgement."""
        material = canonical_json([self.name, self.version, list(messages), reply])
        key = hashlib.sha256(material.encode()).hexdigest()
        if key not in self._known:
            judgement = self._judge.judge(messages, reply)
            if judgement.error is not None:
                return judgement
            self._known[key] = judgement
            self._file.append({"key": key, "judgement": _to_json(judgement)})
        return self._known[key]


def _to_json(judgement: Judgement) -> dict[str, Any]:
    return asdict(judgement) | {"categories": sorted(judgement.categories)}


def _from_json(row: dict[str, Any]) -> Judgement:
    spans = tuple((start, end) for start, end in row["harmful_spans"])
    return Judgement(**row | {"categories": frozenset(row["categories"]), "harmful_spans": spans})
