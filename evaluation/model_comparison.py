"""Two models from their folders to one report: replies drawn, judged, compared, and shown probe by probe."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import blake3_file, canonical_json, read_json, write_jsonl
from prosocial.core.protocols import Judge

from .comparison.metrics import MARGIN
from .comparison.report import compare
from .judges.cache import CachedJudge
from .outcomes.outcome import Outcome, judge_reply
from .probes.probe import Probe
from .report.drilldown import every_probe
from .report.report_document import assemble, write_report
from .sampling.shards import Drawing, plan_shards, reply_of
from .sampling.store import ReplyStore
from .sampling.systems import open_system
from .sampling.workers import answer_shards
from .statistics.judge_error import JudgeErrors

JUDGEMENTS_FILE, OUTCOMES_FILE = "judgements.jsonl", "outcomes.jsonl"
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparisonSettings:
    """How two models are compared.

    Attributes:
        seed, temperature, max_new_tokens, samples: of the replies; without a limit the smaller of the models' own.
        margin: share of utility that may be lost.
        judge_errors: of the judge, by system and by what it is asked.
        workers: processes. ray: address of a Ray cluster instead.
        reveal: show harmful requests and replies in clear.
    """

    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int | None = None
    samples: int = 1
    margin: float = MARGIN
    judge_errors: Mapping[str, Mapping[str, JudgeErrors]] = field(default_factory=dict)
    workers: int = 1
    ray: str | None = None
    reveal: bool = False


def compare_models(
    base: Path,
    edited: Path,
    *,
    probes: Sequence[Probe],
    judge: Judge,
    settings: ComparisonSettings | None = None,
    out: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Put two models to the same probes, judge the replies, and return the report.

    Args:
        base, edited: a checkpoint, a steered model or a bundle each; `base` is the reference.
        probes: the requests. judge: of the replies.
        settings: how they are compared.
        out: folder for the report, the outcomes (redacted) and the replies (in clear); a killed comparison goes on
            there. None keeps nothing.
        facts: what else the report should tell.
        advance: told of replies drawn and replies in all.

    Raises:
        InputError: no probe, several samples without temperature, or a folder with another comparison.
        ArtefactError: a model that is not whole.
    """
    how = settings or ComparisonSettings()
    if not probes:
        raise InputError("a comparison should have at least one probe: there is none")
    if how.samples < 1 or (how.samples > 1 and how.temperature == 0):
        raise InputError(
            f"several samples of a probe need a temperature above 0, or all are the same: found {how.samples} at "
            f"temperature {how.temperature:g}"
        )
    folders = {"base": base, "edited": edited}
    limit = how.max_new_tokens or min(open_system(folder).max_new_tokens for folder in folders.values())
    drawing = Drawing(how.seed, how.temperature, limit, how.samples)
    with nullcontext(str(out)) if out is not None else tempfile.TemporaryDirectory() as place:
        outcomes = _outcomes(folders, probes, judge, drawing, how, Path(place), advance)
        if out is not None:
            write_outcomes(out / OUTCOMES_FILE, outcomes, reveal=how.reveal)
    told = {"base": base.name, "edited": edited.name, **(facts or {}), **asdict(drawing)}
    parts: dict[str, Any] = {
        "title": f"{base.name} and {edited.name}",
        "comparison": compare(probes, outcomes, margin=how.margin, judge_errors=how.judge_errors),
        "facts": told,
        "probes": every_probe(probes, outcomes, reveal=how.reveal),
    }
    return assemble(**parts) if out is None else write_report(out, **parts)


def _outcomes(
    folders: Mapping[str, Path],
    probes: Sequence[Probe],
    judge: Judge,
    drawing: Drawing,
    how: ComparisonSettings,
    place: Path,
    advance: Advance | None,
) -> dict[str, list[Outcome]]:
    store = ReplyStore(
        place,
        {
            "systems": {name: folder_digest(folder) for name, folder in folders.items()},
            "probes": hashlib.sha256("".join(canonical_json(probe.to_json()) for probe in probes).encode()).hexdigest(),
            **asdict(drawing),
        },
    )
    shards = plan_shards(folders, probes, drawing)
    total = sum(len(shard.asked) for shard in shards)
    missing = store.missing(shards)
    done = total - sum(len(shard.asked) for shard in missing)
    for shard, rows in answer_shards(missing, workers=how.workers, ray=how.ray):
        store.add(shard, rows)
        done += len(rows)
        if advance is not None:
            advance(done, total)
    cached, by_id = CachedJudge(judge, place / JUDGEMENTS_FILE), {probe.id: probe for probe in probes}
    stamp = f"{judge.name} {judge.version}"
    found: dict[str, list[Outcome]] = {name: [] for name in folders}
    for row in store.rows(shards):
        judgement = judge_reply(cached, by_id[row["probe"]].messages, reply_of(row))
        found[row["system"]].append(Outcome(row["probe"], row["reply"], judgement, stamp, row["sample"]))
    return found


def write_outcomes(path: Path, outcomes: Mapping[str, Sequence[Outcome]], *, reveal: bool = False) -> None:
    """Write one line per reply, system by system, in the order of the probes; harmful words black unless `reveal`."""
    write_jsonl(
        path, [{"system": name, **one.to_json(reveal=reveal)} for name, found in outcomes.items() for one in found]
    )


def folder_digest(folder: Path) -> str:
    """Return a digest of what a model's folder holds: every file that is not hidden, by name and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [[path.relative_to(folder).as_posix(), blake3_file(path)] for path in files]
    return hashlib.sha256(canonical_json(lines).encode()).hexdigest()


def read_judge_errors(path: Path) -> dict[str, dict[str, JudgeErrors]]:
    """Read the errors of a judge: by system (base, edited), then by what it is asked (harm, refusal, success).

    Each holds `n_events`, `found`, `n_others`, `cleared`: counts of labelled replies of that system.

    Raises:
        InputError: another system or question, or counts that cannot be.
    """
    found: dict[str, dict[str, JudgeErrors]] = {}
    for system, rows in read_json(path).items():
        if system not in ("base", "edited") or not isinstance(rows, dict):
            raise InputError(
                f"{path} should hold objects under 'base' and 'edited', found {system!r}: {json.dumps(rows):.60}"
            )
        unknown = set(rows) - {"harm", "refusal", "success"}
        if unknown:
            raise InputError(f"{path} should say harm, refusal or success under {system!r}, found {sorted(unknown)}")
        found[system] = {
            about: JudgeErrors.from_json(row if isinstance(row, dict) else {}, where=f"{path}, {system}, {about}")
            for about, row in rows.items()
        }
    return found
