from typing import Any

from numpy.typing import NDArray

def edit(
    target: NDArray[Any], delta: NDArray[Any], coefficient: float, out: NDArray[Any], is_bf16: bool
) -> tuple[int, int, float, float, float, float, float]: ...
def scatter(places: NDArray[Any], values: NDArray[Any], at: int, out: NDArray[Any]) -> int: ...
