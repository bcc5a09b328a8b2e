"""What was measured of a bundle, before any gate: kept in a file, so that a gate can be moved without running again."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import ArtefactError
from prosocial.core.files import storage_errors

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
    """A bundle beside its reference.

    Attributes:
        reference, bundle: names of the engines.
        divergences: by prompt, position by position (teacher forced on the reference's reply).
        greedy: one comparison per prompt.
        sizes_differ: positions at which the engines report safe sets of different sizes.
        settings: by prompt, under which steering it was compared.
        subject: digests of what was compared, as in `ParityReport`.
        config_differences: keys of the decoding config that differ.
        paths: by another way to compute the same logits, the largest difference from token by token.
        failure: why the bundle could not be run to the end.
        first_difference: where both sides part on the way through the model, where that was looked for.
    """

    reference: str
    bundle: str
    divergences: Mapping[str, Divergence]
    greedy: tuple[GreedyComparison, ...]
    sizes_differ: int
    settings: Mapping[str, str] = field(default_factory=dict)
    subject: Mapping[str, str] = field(default_factory=dict)
    config_differences: tuple[str, ...] = ()
    paths: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    first_difference: FirstDifference | None = None

    def judge(self, gates: ParityGates) -> ParityReport:
        """Hold everything against gates; nothing is computed anew."""
        ties = bands(self.divergences, gates)
        divergences = {name: found.under(ties) for name, found in self.divergences.items()}
        greedy = tuple(one.under(ties) for one in self.greedy)
        beside = judge_beside(gates, failure=self.failure, config_differences=self.config_differences, paths=self.paths)
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


def write_measurement(path: Path, found: Measurement) -> None:
    """Write a measurement as an npz file: arrays over all positions of all prompts, the rest as JSON in one of them."""
    parts = list(found.divergences.values())
    arrays: dict[str, NDArray[Any]] = {name: _column(parts, name) for name in ARRAYS}
    arrays |= {
        name: _column(parts, name) for name in OPTIONAL if all(getattr(each, name) is not None for each in parts)
    }
    rest = {
        "schema": SCHEMA,
        **{name: getattr(found, name) for name in ("reference", "bundle", "sizes_differ", "failure")},
        "settings": dict(found.settings),
        "subject": dict(found.subject),
        "paths": dict(found.paths),
        "config_differences": list(found.config_differences),
        "first_difference": None if found.first_difference is None else asdict(found.first_difference),
        "greedy": [asdict(one) for one in found.greedy],
        "prompts": [
            {"name": name, "n_positions": len(each.kl), **{count: getattr(each, count) for count in COUNTS}}
            | {"flips": [asdict(flip) for flip in each.flips]}
            for name, each in found.divergences.items()
        ],
    }
    arrays["rest"] = np.frombuffer(json.dumps(rest).encode("utf-8"), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    with storage_errors(path):
        path.write_bytes(stream.getvalue())


def read_measurement(path: Path) -> Measurement:
    """Read a measurement.

    Raises:
        ArtefactError: the file is not there, or is no measurement.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        rest = json.loads(arrays.pop("rest").tobytes())
        if rest.pop("schema") != SCHEMA:
            raise ArtefactError(f"{path} should hold {SCHEMA}: measure again")
        return _read(rest, arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile):
        raise ArtefactError(f"{path} should hold the measurements of prosocial verify --out, it does not") from None


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
    found = Measurement(divergences=divergences, **{name: rest[name] for name in given - {"greedy"}}, greedy=())
    greedy = tuple(GreedyComparison(**one) for one in rest["greedy"])
    place = None if first is None else FirstDifference(**first)
    keys = tuple(rest["config_differences"])
    return replace(found, greedy=greedy, first_difference=place, config_differences=keys)


def _column(parts: list[Divergence], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(each, name) for each in parts]) if parts else np.zeros(0)
