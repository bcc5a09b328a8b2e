"""The measurements of a bundle before any gate, kept in a file so that other gates can be applied without a rerun."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tokenize import TokenError  # numpy reads the header of an array as Python
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from prosocial.core.contents import WRONG_FORM
from prosocial.core.errors import ArtefactError
from prosocial.core.files import written_aside

from .divergence import Divergence, Flip
from .gates import ParityGates
from .judging import GreedyComparison, bands, judge, judge_beside
from .localisation import FirstDifference
from .report import ParityReport

SCHEMA = "prosocial.parity_measurements/1"
ARRAYS = ("logit", "kl", "top1_agrees", "top1_margin", "risk", "top10_missing", "top10_gap")
OPTIONAL = ("threshold_distance", "token_risk")
COUNTS = ("n_decisions", "n_broken")


@dataclass(frozen=True)
class Measurement:
    """The measured differences between a bundle and its reference.

    Attributes:
        reference: name of the reference engine.
        bundle: name of the bundle's engine.
        divergences: differences at each position by prompt, teacher-forced on the reference's reply.
        greedy: comparison of the greedy replies, one per prompt.
        sizes_differ: number of positions at which the engines report safe sets of different sizes.
        settings: name of the steering that each prompt was compared under.
        subject: digests of bundle, reference and prompts, as in `ParityReport`.
        config_differences: keys of the decoding config that differ.
        entry_points: differences in what other clients read, by check; empty where they were not compared.
        paths: largest difference between the bundle's logits computed token by token and in another way, by that way.
        failure: why the bundle could not be run to the end; None if it could.
        first_difference: the first point in a forward pass that differs; None if all agree or it was not located.
    """

    reference: str
    bundle: str
    divergences: Mapping[str, Divergence]
    greedy: tuple[GreedyComparison, ...]
    sizes_differ: int
    settings: Mapping[str, str] = field(default_factory=dict)
    subject: Mapping[str, str] = field(default_factory=dict)
    config_differences: tuple[str, ...] = ()
    entry_points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paths: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    first_difference: FirstDifference | None = None

    def judge(self, gates: ParityGates) -> ParityReport:
        """Judge the measurement against gates; no model is run."""
        ties = bands(self.divergences, gates)
        divergences = {name: each.under(ties) for name, each in self.divergences.items()}
        greedy = tuple(one.under(ties) for one in self.greedy)
        beside = judge_beside(
            gates,
            failure=self.failure,
            config_differences=self.config_differences,
            entry_points=self.entry_points,
            paths=self.paths,
        )
        decided = judge(divergences, greedy, gates, ties) if divergences else ()
        return ParityReport(
            self.reference,
            self.bundle,
            (*decided, *beside),
            divergences,
            greedy,
            self.sizes_differ,
            ties,
            gates.are_bands_measured,
            subject=self.subject,
            settings=self.settings,
            config_differences=self.config_differences,
            paths=self.paths,
            first_difference=self.first_difference,
        )


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Write a measurement as an npz file of arrays over all positions; array `rest` holds the other values as JSON."""
    parts = list(measurement.divergences.values())
    arrays: dict[str, NDArray[Any]] = {name: _column(parts, name) for name in ARRAYS}
    arrays |= {
        name: _column(parts, name) for name in OPTIONAL if all(getattr(each, name) is not None for each in parts)
    }
    rest = {
        "schema": SCHEMA,
        **{name: getattr(measurement, name) for name in ("reference", "bundle", "sizes_differ", "failure")},
        "settings": dict(measurement.settings),
        "subject": dict(measurement.subject),
        "paths": dict(measurement.paths),
        "config_differences": list(measurement.config_differences),
        "entry_points": {name: list(found) for name, found in measurement.entry_points.items()},
        "first_difference": None if measurement.first_difference is None else asdict(measurement.first_difference),
        "greedy": [asdict(one) for one in measurement.greedy],
        "prompts": [
            {"name": name, "n_positions": len(each.kl), **{count: getattr(each, count) for count in COUNTS}}
            | {"flips": [asdict(flip) for flip in each.flips]}
            for name, each in measurement.divergences.items()
        ],
    }
    arrays["rest"] = np.frombuffer(json.dumps(rest).encode("utf-8"), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    with written_aside(path) as aside:
        aside.write_bytes(stream.getvalue())


def read_measurement(path: Path) -> Measurement:
    """Read a measurement.

    Raises:
        ArtefactError: the file does not exist or is not a measurement.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        rest = json.loads(arrays.pop("rest").tobytes())
        if rest.pop("schema") != SCHEMA:
            raise ArtefactError(f"{path} should have schema {SCHEMA}: run prosocial verify --out again")
        return _read(rest, arrays)
    except (*WRONG_FORM, OSError, EOFError, BadZipFile, zlib.error, struct.error, TokenError, MemoryError):
        raise ArtefactError(
            f"{path} should be a file of measurements, but it cannot be read as one: run prosocial verify --out"
        ) from None


def _read(rest: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Measurement:
    divergences: dict[str, Divergence] = {}
    at = 0
    for prompt in rest.pop("prompts"):
        end = at + prompt["n_positions"]
        columns = {name: values[at:end] for name, values in arrays.items()} | {name: prompt[name] for name in COUNTS}
        flips = tuple(Flip(**flip) for flip in prompt["flips"])
        optional = {name: columns.pop(name, None) for name in OPTIONAL}
        divergences[prompt["name"]] = Divergence(**columns, **optional, flips=flips)
        at = end
    first = rest.pop("first_difference")
    given = {each.name for each in fields(Measurement)} & set(rest)
    measurement = Measurement(divergences=divergences, **{name: rest[name] for name in given - {"greedy"}}, greedy=())
    greedy = tuple(GreedyComparison(**one) for one in rest["greedy"])
    place = None if first is None else FirstDifference(**first)
    keys = tuple(rest["config_differences"])
    entries = {name: tuple(found) for name, found in rest.get("entry_points", {}).items()}  # none in version 0.1.0
    return replace(measurement, greedy=greedy, first_difference=place, config_differences=keys, entry_points=entries)


def _column(parts: list[Divergence], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(each, name) for each in parts]) if parts else np.zeros(0)
