"""The error score of a reply under a safety config, by which CoSAlign ranks replies."""

from collections.abc import Set

from prosocial.core.settings import NonNegative, Settings


class ErrorWeights(Settings):
    """The weight of each kind of error (arXiv 2410.08968, section 4).

    Attributes:
        allowed: weight of each harm that the config allows.
        disallowed: weight of each harm that the config does not allow.
        unaddressed: weight of a reply that does not do what the request asks for.
    """

    allowed: NonNegative = 0.1
    disallowed: NonNegative = 3.0
    unaddressed: NonNegative = 1.0


def error_score(harms: Set[str], addressed: bool, *, allowed: Set[str], weights: ErrorWeights) -> float:
    """Return the error score of a reply; lower is better.

    With the default weights it is 0.1 |allowed harms| + 3 |disallowed harms| + 1 [not addressed]. So help without harm
    scores 0, help with an allowed harm 0.1, a refusal 1, and a reply that breaks the config 3 or more.

    Source: arXiv 2410.08968, section 4.

    Examples:
        >>> error_score({"violence", "drugs"}, False, allowed={"violence"}, weights=ErrorWeights())
        4.1
    """
    cost = weights.allowed * len(harms & allowed) + weights.disallowed * len(harms - allowed)
    return cost + weights.unaddressed * (not addressed)


def breaks(harms: Set[str], *, allowed: Set[str]) -> bool:
    """Return whether a reply contains a harm that the config does not allow."""
    return bool(harms - allowed)
