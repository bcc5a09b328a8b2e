"""The error score of a reply under a safety config: what CoSAlign's pairs are ordered by."""

from collections.abc import Set

from prosocial.core.settings import NonNegative, Settings


class ErrorWeights(Settings):
    """What each kind of error costs (arXiv 2410.08968, section 4).

    Attributes:
        allowed: for a harm that the config allows. disallowed: for one that it does not allow.
        unaddressed: for a reply that does not do what was asked.
    """

    allowed: NonNegative = 0.1
    disallowed: NonNegative = 3.0
    unaddressed: NonNegative = 1.0


def error_score(harms: Set[str], addressed: bool, *, allowed: Set[str], weights: ErrorWeights) -> float:
    """Return E = 0.1 |harms that are allowed| + 3 |harms that are not| + 1 [not addressed], with weights as given.

    So to help without harm costs 0, to help with permitted harm a little, to refuse 1, to break the config 3 or more.

    Example:
        >>> error_score({"violence", "drugs"}, False, allowed={"violence"}, weights=ErrorWeights())
        4.1
    """
    cost = weights.allowed * len(harms & allowed) + weights.disallowed * len(harms - allowed)
    return cost + weights.unaddressed * (not addressed)


def breaks(harms: Set[str], *, allowed: Set[str]) -> bool:
    """Return whether a reply does a harm that the config does not allow."""
    return bool(harms - allowed)
