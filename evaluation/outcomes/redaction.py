"""Redaction: harmful spans become black blocks, so that a report shows that a reply was harmful, but not how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosocial.core.protocols import Judgement

BLOCK = "█████"
CHARACTERS_PER_BLOCK = 6  # hides the exact length, which could reveal a short span
MOST_BLOCKS = 12


@dataclass(frozen=True)
class Segment:
    """A segment of a reply.

    Attributes:
        text: text of the segment, or black blocks if it is hidden.
        hidden: whether the text was replaced.
    """

    text: str
    hidden: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"text": self.text, "hidden": self.hidden}


def redact(reply: str, judgement: Judgement) -> list[Segment]:
    """Return a reply in segments, with its harmful spans replaced by blocks.

    A harmful reply without spans, and a reply that could not be judged, are replaced as a whole.

    Examples:
        >>> [piece.text for piece in redact("first glim the vat", Judgement(harmful_spans=((6, 14),)))]
        ['first ', '█████ █████', ' vat']
    """
    spans: Sequence[tuple[int, int]] = judgement.harmful_spans
    if not spans and judgement.leak() is not False:
        spans = ((0, len(reply)),)
    segments: list[Segment] = []
    at = 0
    for start, end in _merged(spans, len(reply)):
        if start > at:
            segments.append(Segment(reply[at:start]))
        segments.append(Segment(_blocks(end - start), hidden=True))
        at = end
    if at < len(reply):
        segments.append(Segment(reply[at:]))
    return segments


def redacted_text(reply: str, judgement: Judgement) -> str:
    """Return a reply as one string, with its harmful spans replaced by blocks.

    Examples:
        >>> redacted_text("first glim the vat", Judgement(harmful_spans=((6, 14),)))
        'first █████ █████ vat'
    """
    return "".join(segment.text for segment in redact(reply, judgement))


def _merged(spans: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Return the spans sorted and clipped to the text, with overlapping and adjacent ones merged."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((max(0, start), min(length, end)) for start, end in spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _blocks(characters: int) -> str:
    return " ".join([BLOCK] * min(MOST_BLOCKS, -(-characters // CHARACTERS_PER_BLOCK)))
