"""Formatting of numbers and results, shared by the terminal and the pages."""

from collections.abc import Mapping
from typing import Any

MINUS = "\u2212"
NARROW = "\u202f"


def percent(value: float | None, *, digits: int = 1) -> str:
    """Return a share as per cent.

    Examples:
        >>> percent(0.7875)
        '78.8\u202f%'
    """
    return "?" if value is None else f"{100 * value:.{digits}f}{NARROW}%"


def signed(value: float | None, *, scale: float = 100.0, digits: int = 1) -> str:
    """Return a difference with its sign, in percentage points.

    Examples:
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
    """Return the limits of an interval: of a share in per cent, or of a difference in percentage points.

    The conservative limits, which count each topic once, follow in brackets if they are wider.

    Examples:
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

    Examples:
        >>> number(0.00001234), number(0), number(12), number(None)
        ('1.23e-05', '0', '12', 'not finite')
    """
    return "not finite" if value is None else f"{value:.3g}"


def p_value(value: float | None) -> str:
    """Return a p-value.

    Examples:
        >>> p_value(0.00001), p_value(0.0421)
        ('< 0.001', '0.042')
    """
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Examples:
        >>> plural(1, "probe"), plural(2, "reply")
        ('1 probe', '2 replies')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def is_clear(interval: Mapping[str, Any]) -> bool:
    """Return whether the interval of a difference and its conservative limits exclude zero."""
    low, high = interval["low"], interval["high"]
    if "conservative" in interval:
        low, high = (_widest(low, interval["conservative"][0], min), _widest(high, interval["conservative"][1], max))
    return low is not None and high is not None and not low <= 0 <= high


def result_tone(result: str) -> str:
    """Return the colour of a result of `headline.result_word`: good, bad or open.

    Examples:
        >>> result_tone("better"), result_tone("tolerable"), result_tone("worse")
        ('good', 'open', 'bad')
    """
    return {"better": "good", "held": "good", "worse": "bad"}.get(result, "open")


def _widest(one: float | None, other: float | None, choose: Any) -> float | None:
    return None if one is None or other is None else choose(one, other)


def decision_lines(parity: Mapping[str, Any]) -> list[str]:
    """Return the results of a parity report on decisions and replies, as sentences."""
    safe_set, greedy = parity["safe_set"], parity["greedy"]
    bands, near = safe_set["bands"], safe_set["n_positions_near_threshold"]
    inside, n_flips, n_measured = safe_set["n_near_ties"], safe_set["n_flips"], safe_set["n_prompts_with_margins"]
    part = f" of {n_measured:,} prompts" if 0 < n_measured < parity["n_prompts"] else ""
    lines = [
        f"{n_flips:,} of {safe_set['n_decisions']:,} safety decisions differ: {inside:,} inside the noise band, "
        f"{n_flips - inside:,} outside; {safe_set['n_unsafe_let_in']:,} allow a token that the reference calls unsafe",
        f"noise band ({bands['set_by']}): risk within {number(bands['risk'])} of the threshold, "
        f"logit within {number(bands['logit'])} of the last plausible one"
        + ("" if near is None else f"; at {near:,} positions{part} a risk is that close"),
        f"every risk farther from the threshold than any risk differs ({number(safe_set['risk_moved_at_most'])}): "
        f"{percent(safe_set['certified_share'])} of positions{part}",
        f"upper 95 % limit of decisions that differ: {percent(safe_set['flip_share_at_most'], digits=3)}; "
        f"of prompts with any: {percent(safe_set['prompt_flip_share_at_most'])}",
        f"same most likely token at {percent(parity['top1_agreement'])} of {parity['n_positions']:,} positions; "
        f"{greedy['n_identical']:,} of {greedy['n']:,} greedy replies are identical",
    ]
    if greedy["median_first_difference"] is not None:
        lines[-1] += f", the others differ from token {greedy['median_first_difference']:g} on (median)"
    return lines
