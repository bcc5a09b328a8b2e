"""Numbers and findings in words, the same in the terminal and on the page."""

from collections.abc import Mapping
from typing import Any

MINUS = "\u2212"
NARROW = "\u202f"


def percent(value: float | None, *, digits: int = 1) -> str:
    """Return a share as per cent.

    Example:
        >>> percent(0.7875)
        '78.8\u202f%'
    """
    return "?" if value is None else f"{100 * value:.{digits}f}{NARROW}%"


def signed(value: float | None, *, scale: float = 100.0, digits: int = 1) -> str:
    """Return a difference with its sign, in percentage points.

    Example:
        >>> signed(-0.5), signed(0.0), signed(0.123)
        ('−50.0', '0.0', '+12.3')
    """
    if value is None:
        return "?"
    text = f"{scale * value:+.{digits}f}"
    if float(text) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def limits(interval: Mapping[str, Any], *, difference: bool = False, digits: int = 1) -> str:
    """Return the limits of an interval of a share or of a difference, in per cent or percentage points.

    In brackets: the limits with each topic counted once, where these are wider.

    Example:
        >>> limits({"low": 0.1, "high": 0.25})
        '10.0 to 25.0'
        >>> limits({"low": 0.0, "high": 0.045, "conservative": [0.0, 0.168]})
        '0.0 to 4.5 (0.0 to 16.8)'
    """
    write = signed if difference else _plain
    text = f"{write(interval['low'], digits=digits)} to {write(interval['high'], digits=digits)}"
    low, high = interval.get("conservative", (None, None))
    wider = f"{write(low, digits=digits)} to {write(high, digits=digits)}"
    return f"{text} ({wider})" if "conservative" in interval and wider != text else text


def _plain(value: float | None, *, digits: int) -> str:
    return "?" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None) -> str:
    """Return a number short enough for a table.

    Example:
        >>> number(0.00001234), number(0), number(12), number(None)
        ('1.23e-05', '0', '12', 'not finite')
    """
    return "not finite" if value is None else f"{value:.3g}"


def p_value(value: float | None) -> str:
    """Return a p-value.

    Example:
        >>> p_value(0.00001), p_value(0.0421)
        ('< 0.001', '0.042')
    """
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> plural(1, "probe"), plural(2, "reply")
        ('1 probe', '2 replies')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def is_clear(interval: Mapping[str, Any]) -> bool:
    """Return whether the interval of a difference, at its widest reading, leaves out zero."""
    low, high = interval["low"], interval["high"]
    if "conservative" in interval:
        low, high = (_widest(low, interval["conservative"][0], min), _widest(high, interval["conservative"][1], max))
    return low is not None and high is not None and not low <= 0 <= high


def _widest(one: float | None, other: float | None, choose: Any) -> float | None:
    return None if one is None or other is None else choose(one, other)


def decision_lines(parity: Mapping[str, Any]) -> list[str]:
    """Return what a parity report found of the decisions and the replies, in sentences."""
    found, greedy = parity["safe_set"], parity["greedy"]
    bands, near = found["bands"], found["n_positions_near_threshold"]
    inside, n_flips, n_asked = found["n_near_ties"], found["n_flips"], found["n_prompts_with_margins"]
    part = f" of {n_asked:,} prompts" if 0 < n_asked < parity["n_prompts"] else ""
    lines = [
        f"{n_flips:,} of {found['n_decisions']:,} safety decisions differ: {inside:,} inside the noise band, "
        f"{n_flips - inside:,} outside; {found['n_unsafe_let_in']:,} let in a token that the reference calls unsafe",
        f"the band ({bands['set_by']}): risk within {number(bands['risk'])} of the threshold, "
        f"logit within {number(bands['logit'])} of the last plausible one"
        + ("" if near is None else f"; at {near:,} positions{part} a risk lies that near"),
        f"beyond the noise (risk off by at most {number(found['risk_moved_at_most'])}): "
        f"{percent(found['certified_share'])} of positions{part}",
        f"decisions that differ, at most (95 %): {percent(found['flip_share_at_most'], digits=3)}; "
        f"prompts with any: {percent(found['prompt_flip_share_at_most'])}",
        f"most likely token the same at {percent(parity['top1_agreement'])} of {parity['n_positions']:,} positions; "
        f"{greedy['n_identical']:,} of {greedy['n']:,} greedy replies are identical",
    ]
    if greedy["median_first_difference"] is not None:
        lines[-1] += f", the others part after {greedy['median_first_difference']:g} tokens (median)"
    return lines
