"""The search space of a sweep: scale, method, and distribution of the edit over the model (torch-free)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.editing.depth import count_blocks, depth_factors
from prosocial.editing.edits.scaling import Coefficients, Scale
from prosocial.editing.vectors.methods import METHODS
from prosocial.editing.vectors.methods.numbers import Number

if TYPE_CHECKING:
    from optuna import Trial

# The part of a block that a tensor belongs to; a tensor that matches neither is "other".
PARTS = {
    "attention": re.compile(r"(?:^|\.)\d+\.(?:.*\.)?(?:self_attn|attn|attention|self_attention)\."),
    "mlp": re.compile(r"(?:^|\.)\d+\.(?:.*\.)?(?:mlp|feed_forward|ffn|block_sparse_moe)\."),
}
SCALE_STEP, TILT_STEP = 0.05, 0.125
HIGHEST_SCALE = 1000.0  # so that the number of steps is bounded
# The first trials if `spread` is set: scale, tilt over the layers, tilt between attention and MLP. They edit the early
# layers less and less, as LiNeS does (arXiv 2410.17146), and finally the MLP less too.
STARTS = ((1.0, 0.0, 0.0), (2.0, 0.5, 0.0), (3.0, 1.0, 0.0), (3.0, 0.75, -0.5))


@dataclass(frozen=True)
class Choice:
    """One point of the search space, which fully determines an edit.

    Attributes:
        method: name of the method that shapes the harm vector.
        scale: largest coefficient of any tensor, at least 0.
        parameters: searched parameters of the method.
        ramp: factors of the scale in the first and the last layer, in [0, 1], linear in between.
        balance: factors of the scale for attention and for MLP, in [0, 1]; 1 for other tensors.
    """

    method: str
    scale: float
    parameters: Mapping[str, float] = field(default_factory=dict)
    ramp: tuple[float, float] = (1.0, 1.0)
    balance: tuple[float, float] = (1.0, 1.0)

    def coefficients(self, names: Sequence[str]) -> Scale:
        """Return the scale of the given tensors: one number, or one per tensor (see `depth_factors`).

        Examples:
            >>> names = ["embed.weight", "model.layers.0.mlp.weight", "model.layers.1.mlp.weight"]
            >>> list(Choice("plain", 2.0, ramp=(0.5, 1.0)).coefficients(names).numbers.values())
            [1.0, 1.0, 2.0]
        """
        if self.ramp == self.balance == (1.0, 1.0) or not count_blocks(names):
            return self.scale
        balance = dict(zip(PARTS, self.balance, strict=True))
        return Coefficients(
            {
                name: round(self.scale * factor * balance.get(part_of(name), 1.0), 6)
                for name, factor in depth_factors(names, *self.ramp).items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "method": self.method,
            "parameters": dict(sorted(self.parameters.items())),
            "scale": self.scale,
            "ramp": list(self.ramp),
            "balance": list(self.balance),
        }

    def __str__(self) -> str:
        """Return the choice on one line, for tables."""
        shape = "".join(f" {name} {value:g}" for name, value in sorted(self.parameters.items()))
        ramp = "" if self.ramp == (1.0, 1.0) else f" ramp {self.ramp[0]:g}:{self.ramp[1]:g}"
        balance = "" if self.balance == (1.0, 1.0) else f" attention:mlp {self.balance[0]:g}:{self.balance[1]:g}"
        return f"{self.method}{shape} scale {self.scale:g}{ramp}{balance}"


@dataclass(frozen=True)
class SearchSpace:
    """The search space of a sweep.

    Attributes:
        methods: names of methods of harm vectors.
        scale: lowest and highest scale; at least 0 and at most 1000.
        spread: whether to search the distribution of the edit over layers, and between attention and MLP.
        given: fixed parameters, such as `utility`, passed to every method that has a parameter of that name.

    Raises:
        InputError: there is no method, the scale limits are invalid, a parameter is neither searched nor given, or a
            given one is out of range.
        UnknownNameError: a method does not exist.
    """

    methods: tuple[str, ...]
    _: KW_ONLY
    scale: tuple[float, float] = (SCALE_STEP, 6.0)
    spread: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.methods:
            raise InputError("a sweep should have at least one method, found none: give one")
        low, high = self.scale
        if not 0 <= low < high <= HIGHEST_SCALE:
            expected = f"a number of at least 0 to a higher one of at most {HIGHEST_SCALE:g}"
            raise InputError(f"scales should run from {expected}, found {low} to {high}")
        for method in self.methods:
            if method not in METHODS:
                raise UnknownNameError("method", method, METHODS)
            missing = set(METHODS[method].parameters) - searched(method).keys() - self.given.keys()
            if missing:
                raise InputError(
                    f"method {method} should be given {', '.join(sorted(missing))}, which a sweep cannot search"
                )
            for name, value in self.given_to(method).items():
                METHODS[method].check_value(name, value)

    def choose(self, trial: "Trial") -> Choice:
        """Return the point that a trial suggests."""
        method = str(trial.suggest_categorical("method", self.methods))
        scale = self.scale[0] + SCALE_STEP * trial.suggest_int("scale_steps", 0, self._n_steps)
        ramp, balance = (self._tilt(trial, name) for name in ("ramp", "balance"))
        parameters: dict[str, float] = {}
        for name, number in searched(method).items():
            if name not in self.given:
                parameters[name] = draw(trial, f"{method}.{name}", number)
        return Choice(method, round(scale, 6), parameters, ramp, balance)

    def starts(self) -> list[dict[str, Any]]:
        """Return the parameters of the first trials; missing parameters are sampled."""
        if not self.spread:
            return []
        return [
            {
                "method": self.methods[number % len(self.methods)],
                "scale_steps": min(self._n_steps, max(0, round((scale - self.scale[0]) / SCALE_STEP))),
                "ramp": ramp,
                "balance": balance,
            }
            for number, (scale, ramp, balance) in enumerate(STARTS)
        ]

    @property
    def _n_steps(self) -> int:
        """The number of steps from the lowest to the highest scale."""
        low, high = self.scale
        return int((high - low) / SCALE_STEP + 1e-6)

    def _tilt(self, trial: "Trial", name: str) -> tuple[float, float]:
        return tilted(trial.suggest_float(name, -1.0, 1.0, step=TILT_STEP)) if self.spread else (1.0, 1.0)

    def given_to(self, method: str) -> dict[str, Any]:
        """Return the given parameters that a method accepts."""
        known = (*METHODS[method].parameters, *METHODS[method].defaults)
        return {name: value for name, value in self.given.items() if name in known}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, with only the last part of paths."""
        return {
            "methods": list(self.methods),
            "scale": list(self.scale),
            "spread": self.spread,
            "given": {name: Path(str(value)).name for name, value in sorted(self.given.items())},
            "ranges": {
                method: {name: list(number.search or ()) for name, number in searched(method).items()}
                for method in self.methods
            },
        }


def searched(method: str) -> dict[str, Number]:
    """Return the parameters of a method that a sweep searches, as declared in the method's signature.

    Examples:
        >>> {name: number.search for name, number in searched("breadcrumbs").items()}
        {'density': (0.3, 0.98)}
    """
    return {name: number for name, number in METHODS[method].numbers.items() if number.search is not None}


def draw(trial: "Trial", name: str, number: Number) -> float:
    """Return a number that a trial suggests from its search range: an integer, or a float with three digits."""
    low, high = number.search or (number.low, number.high)
    if number.whole:
        return trial.suggest_int(name, int(low), int(high), log=number.log)
    drawn = trial.suggest_float(name, low, high, log=number.log)
    return min(high, max(low, float(f"{drawn:.3g}")))


def part_of(name: str) -> str:
    """Return the part of its block that a tensor belongs to: attention, mlp or other.

    Examples:
        >>> part_of("model.layers.3.self_attn.q_proj.weight"), part_of("model.layers.3.input_layernorm.weight")
        ('attention', 'other')
    """
    return next((part for part, pattern in PARTS.items() if pattern.search(name)), "other")


def tilted(tilt: float) -> tuple[float, float]:
    """Return two factors, the larger of which is 1: tilt 0 gives (1, 1), 1 gives (0, 1), -1 gives (1, 0).

    Examples:
        >>> tilted(0.25), tilted(-1.0)
        ((0.75, 1.0), (1.0, 0.0))
    """
    return (1.0 - max(0.0, tilt), 1.0 + min(0.0, tilt))
