"""Which labelled pairs are trained on, and which are held out."""

from collections.abc import Sequence

from prosocial.core.batches import held_out_split
from prosocial.core.errors import InputError

from .pairs import Pair

HELD_OUT_SHARE = 0.1


def split_pairs(pairs: Sequence[Pair]) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Return the pairs to train on, and the last tenth, at least one pair, which is held out.

    Raises:
        InputError: there are fewer than 2 pairs.
    """
    if len(pairs) < 2:
        raise InputError(f"there should be at least 2 pairs, one to train on and one held out, found {len(pairs)}")
    return held_out_split(pairs, HELD_OUT_SHARE, at_least=1)
