"""Keep the difference unchanged (task arithmetic, arXiv 2212.04089)."""

from .method import Array, Deltas, Prepared, method


def keep(delta: Array) -> Array:
    """Return the delta itself."""
    return delta


@method(elementwise=True)
def prepare(deltas: Deltas) -> Prepared:
    """Prepare the method; the deltas are not read."""
    return Prepared(lambda name, delta: keep(delta), {})
