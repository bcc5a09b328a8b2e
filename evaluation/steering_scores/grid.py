"""The grid of preferences that steering is measured at: uniform, corners, edges and rays of the simplex."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from prosocial.core.errors import InputError

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)

Preference = tuple[float, ...]


@dataclass(frozen=True)
class PreferenceGrid:
    """Unique points of the simplex over named attributes.

    Attributes:
        attributes: k attribute names, in the order of the weights of a preference.
        levels: weights along a ray, increasing from 0 to 1.
        edge_levels: weights along an edge, increasing from 0 to 1.
        points: the preferences, uniform first.

    Raises:
        InputError: there are no attributes, one is repeated, or levels do not increase from 0 to 1.

    Examples:
        >>> len(PreferenceGrid(["warmth", "rigour"]).points)
        5
    """

    attributes: Sequence[str]
    levels: Sequence[float] = LEVELS
    edge_levels: Sequence[float] = LEVELS

    def __post_init__(self) -> None:
        if not self.attributes or len(set(self.attributes)) != len(self.attributes):
            raise InputError(f"a grid should have one or more unique attributes, found {list(self.attributes)}")
        for levels in (self.levels, self.edge_levels):
            if list(levels) != sorted(set(levels)) or levels[0] != 0.0 or levels[-1] != 1.0:
                raise InputError(f"levels should increase from 0 to 1, found {list(levels)}")

    @property
    def points(self) -> list[Preference]:
        """The uniform preference, then all rays, then all edges."""
        n = len(self.attributes)
        rays = [point for index in range(n) for point in self.ray(index)]
        edges = [point for pair in combinations(range(n), 2) for point in self.edge(*pair)]
        return list(dict.fromkeys([(1.0 / n,) * n, *rays, *edges]))

    def ray(self, attribute: int) -> list[Preference]:
        """Return preferences with increasing weight on one attribute, the rest shared equally by the others."""
        n = len(self.attributes)
        return [_mixed(n, {attribute: level}) for level in self.levels] if n > 1 else [(1.0,)]

    def edge(self, first: int, second: int) -> list[Preference]:
        """Return preferences from all weight on `second` to all weight on `first`."""
        return [_mixed(len(self.attributes), {first: level, second: 1.0 - level}) for level in self.edge_levels]

    def corner(self, attribute: int) -> Preference:
        """Return the preference with all weight on one attribute."""
        return _mixed(len(self.attributes), {attribute: 1.0})

    def named(self, point: Preference) -> dict[str, float]:
        """Return a preference as weights by attribute name."""
        return dict(zip(self.attributes, point, strict=True))


def _mixed(n: int, weights: dict[int, float]) -> Preference:
    """Return a preference with the given weights; the other attributes share the rest equally."""
    n_others = n - len(weights)
    rest = (1.0 - sum(weights.values())) / n_others if n_others else 0.0
    return tuple(weights.get(index, rest) for index in range(n))
