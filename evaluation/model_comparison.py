"""Comparing two models: samples their replies, judges and compares them, and writes a report."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import blake3_file, canonical_json, read_json, write_jsonl
from prosocial.core.protocols import Judge

from .comparison.metrics import MARGIN
from .comparison.report import compare
from .judges.cache import CachedJudge
from .judges.rehearsal import rehearse
from .outcomes.outcome import Outcome, judge_reply
from .probes.probe import Probe
from .report.drilldown import every_probe
from .report.report_document import assemble, write_report
from .sampling.shards import Drawing, plan_shards, reply_of
from .sampling.store import ReplyStore, reply_folder
from .sampling.systems import Hardware, open_system
from .sampling.workers import answer_shards
from .statistics.judge_error import JudgeErrors

JUDGEMENTS_FILE, OUTCOMES_FILE = "judgements.jsonl", "outcomes.jsonl"
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings for comparing two models.

    Attributes:
        seed: seed of the sampling noise.
        temperature: sampling temperature; 0 for greedy decoding.
        max_new_tokens: maximum length of a reply; None for the smaller of the models' defaults.
        samples: number of replies per probe.
        margin: non-inferiority margin, the largest acceptable loss of utility.
        judge_errors: error counts of the judge, by system and by what it decides.
        workers: number of processes.
        ray: address of a Ray cluster to use instead.
        reveal: show harmful requests and replies without redaction.
        hardware: what the models run on.
    """

    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int | None = None
    samples: int = 1
    margin: float = MARGIN
    judge_errors: Mapping[str, Mapping[str, JudgeErrors]] = field(default_factory=dict)
    workers: int = 1
    ray: str | None = None
    reveal: bool = False
    hardware: Hardware = field(default_factory=Hardware)


def compare_models(
    base: Path | str,
    edited: Path | str,
    *,
    probes: Sequence[Probe],
    judge: Judge,
    settings: ComparisonSettings | None = None,
    out: Path | str | None = None,
    facts: Mapping[str, Any] | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Sample the replies of two models to the same probes, judge them, and return the report.

    Args:
        base: folder of the reference: a checkpoint, steered model or bundle.
        edited: folder of the model to compare with it.
        probes: the requests.
        judge: judge of the replies.
        settings: settings; None for the defaults.
        out: folder for the report, the outcomes (redacted) and the replies (not redacted); an interrupted comparison
            resumes from it. None to write nothing.
        facts: further facts for the report.
        advance: called with the number of sampled replies and the total.

    Raises:
        InputError: there is no probe, there are several samples at temperature 0, the folder has another comparison, or
            the judge fails on a trial reply.
        ArtefactError: a model is incomplete.
    """
    how = settings or ComparisonSettings()
    if not probes:
        raise InputError("a comparison should have at least one probe, found none")
    if how.samples < 1 or (how.samples > 1 and how.temperature == 0):
        raise InputError(
            f"samples should be at least 1, and several need a temperature above 0 to differ, found {how.samples} at "
            f"temperature {how.temperature:g}"
        )
    base, edited, out = Path(base), Path(edited), None if out is None else Path(out)
    folders = {"base": base, "edited": edited}
    limit = how.max_new_tokens or min(open_system(folder, how.hardware).max_new_tokens for folder in folders.values())
    drawing = Drawing(how.seed, how.temperature, limit, how.samples)
    with reply_folder(out) as place:
        outcomes = _outcomes(folders, probes, judge, drawing, how, place, advance)
        if out is not None:
            write_outcomes(out / OUTCOMES_FILE, outcomes, reveal=how.reveal)
    all_facts = {"base": base.name, "edited": edited.name, **(facts or {}), **asdict(drawing), **how.hardware.to_json()}
    parts: dict[str, Any] = {
        "title": f"{base.name} and {edited.name}",
        "comparison": compare(probes, outcomes, margin=how.margin, judge_errors=how.judge_errors),
        "facts": all_facts,
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
            **how.hardware.placement.stamp(),
        },
    )
    shards = plan_shards(folders, probes, drawing)
    total = sum(len(shard.requests) for shard in shards)
    missing = store.missing(shards)
    if missing:
        rehearse(judge, [probe.messages for probe in probes])
    done = total - sum(len(shard.requests) for shard in missing)
    for shard, rows in answer_shards(missing, hardware=how.hardware, workers=how.workers, ray=how.ray):
        store.add(shard, rows)
        done += len(rows)
        if advance is not None:
            advance(done, total)
    cached, by_id = CachedJudge(judge, place / JUDGEMENTS_FILE), {probe.id: probe for probe in probes}
    stamp = f"{judge.name} {judge.version}"
    outcomes: dict[str, list[Outcome]] = {name: [] for name in folders}
    for row in store.rows(shards):
        judgement = judge_reply(cached, by_id[row["probe"]].messages, reply_of(row))
        outcomes[row["system"]].append(Outcome(row["probe"], row["reply"], judgement, stamp, row["sample"]))
    return outcomes


def write_outcomes(path: Path, outcomes: Mapping[str, Sequence[Outcome]], *, reveal: bool = False) -> None:
    """Write one line per reply, by system and probe, with harmful words blacked out unless `reveal` is set."""
    write_jsonl(path, [{"system": name, **one.to_json(reveal=reveal)} for name, own in outcomes.items() for one in own])


def folder_digest(folder: Path) -> str:
    """Return a digest over names and contents of all files in a folder, except hidden ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [[path.relative_to(folder).as_posix(), blake3_file(path)] for path in files]
    return hashlib.sha256(canonical_json(lines).encode()).hexdigest()


def read_judge_errors(path: Path) -> dict[str, dict[str, JudgeErrors]]:
    """Read the error counts of a judge by system (base, edited) and by what it decides (harm, refusal, success).

    Each entry has `n_events`, `found`, `n_others` and `cleared`: counts of labelled replies of that system.

    Raises:
        InputError: a system or decision is unknown, or the counts are inconsistent.
    """
    errors: dict[str, dict[str, JudgeErrors]] = {}
    for system, rows in read_json(path).items():
        if system not in ("base", "edited") or not isinstance(rows, dict):
            raise InputError(
                f"{path} should have objects 'base' and 'edited', found {system!r}: {json.dumps(rows):.60}"
            )
        unknown = set(rows) - {"harm", "refusal", "success"}
        if unknown:
            raise InputError(f"{path} should have harm, refusal or success under {system!r}, found {sorted(unknown)}")
        errors[system] = {
            about: JudgeErrors.from_json(row if isinstance(row, dict) else {}, where=f"{path}, {system}, {about}")
            for about, row in rows.items()
        }
    return errors
