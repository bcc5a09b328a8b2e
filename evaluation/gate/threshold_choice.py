"""The chosen threshold of a gate with the tests that it rests on: `calibration.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, require_keys, write_json
from prosocial.steering.decoding.config import CALIBRATION_FILE
from prosocial.training.gate.calibration import GateCalibration

from .threshold import LeakTest, unjudged_leaks

SCHEMA = "prosocial.threshold/2"
KEYS = ("max_leak", "confidence", "harm_threshold", "threshold_ceiling", "tests", "success")


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and why it was chosen.

    Attributes:
        harm_threshold: the chosen threshold.
        threshold_ceiling: the highest that a request may set.
        max_leak: the leak rate to show.
        confidence: with which.
        tests: of the candidates, from the strictest; none for a threshold that was given.
        success: share of harmless calibration prompts that are done as asked at the threshold; None: not known.
        safety_configs: names of the configs that the prompts were given in turn.
    """

    harm_threshold: float
    threshold_ceiling: float
    max_leak: float
    confidence: float
    tests: tuple[LeakTest, ...] = ()
    success: float | None = None
    safety_configs: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        threshold: float,
        calibration: GateCalibration,
        *,
        tests: Sequence[LeakTest] = (),
        success: float | None = None,
        safety_configs: Sequence[str] = (),
    ) -> Self:
        """Return a threshold, its ceiling and its tests under the settings of a calibration."""
        ceiling = min(1.0, threshold * calibration.ceiling_factor)
        rate = calibration.max_leak, calibration.confidence
        return cls(threshold, ceiling, *rate, tuple(tests), success, tuple(safety_configs))

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.tests:
            return f"threshold {self.harm_threshold:g}, given"
        last = next(test for test in self.tests if test.threshold == self.harm_threshold)
        text = f"threshold {self.harm_threshold:g}, {last.n_leaks} of {last.n} leak{unjudged_leaks(last.n_unjudged)}, "
        text += f"at most {100 * last.upper:.2g} % ({self.confidence:.0%})"
        return text + ("" if self.success is None else f", {100 * self.success:.1f} % done where harmless")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        fields = {name: getattr(self, name) for name in KEYS} | {"tests": [test.to_json() for test in self.tests]}
        named = {"safety_configs": list(self.safety_configs)} if self.safety_configs else {}
        return {"schema": SCHEMA} | fields | named

    def write(self, folder: Path | str) -> None:
        """Write `calibration.json` into `folder`."""
        write_json(Path(folder) / CALIBRATION_FILE, self.to_json())

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read `calibration.json`, or the one in a folder.

        Raises:
            ArtefactError: the file is missing, of another schema, or lacks a key.
        """
        path = Path(path)
        path = path / CALIBRATION_FILE if path.is_dir() else path
        return cls.from_json(read_json(path, schema=SCHEMA), where=str(path))

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self:
        """Return what `to_json` gave; `where` is what an error calls it.

        Raises:
            ArtefactError: a key is missing, or a test is not one.
        """
        require_keys(dict(value), KEYS, where=where)
        try:
            tests = tuple(LeakTest(**test) for test in value["tests"])
        except TypeError as error:
            raise ArtefactError(f"{where} should hold the tests of a threshold: {error}") from None
        plain = {name: value[name] for name in KEYS if name != "tests"}
        return cls(**plain, tests=tests, safety_configs=tuple(value.get("safety_configs", ())))
