"""Scoring models: samples their replies, judges them by a protocol and scores them by config."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, write_jsonl
from prosocial.core.protocols import Judge
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig, ReplySettings

from ..judges.cache import CachedJudge
from ..judges.cosa_rubrics import Protocol
from ..judges.rehearsal import rehearse
from ..model_comparison import JUDGEMENTS_FILE, folder_digest
from ..sampling.shards import Drawing, Shard
from ..sampling.store import ReplyStore, reply_folder
from ..sampling.systems import Hardware
from ..sampling.workers import answer_shards
from .cascade import filter_drawing, filter_system, lets_pass
from .cosa_score_document import score_document
from .cosa_score_page import write_scores
from .questions import Question, configs_of
from .shots import Shots
from .systems import AskedSystem, Baseline, asked_systems
from .verdicts import CosaVerdict, allowed_of, judge_row, judged_messages

REPLIES_FILE = "replies.jsonl"
Advance = Callable[[int, int], None]
Rows = Mapping[str, Mapping[str, Any]]  # stored replies, by the question's id


@dataclass(frozen=True)
class ScoreSettings:
    """Settings for scoring models.

    Attributes:
        protocol: how the safety of a reply is decided.
        baselines: baselines to score in addition to each model.
        shots: in-context examples by config, for "5-shot".
        seed: seed of the sampling noise and of the bootstrap.
        temperature: sampling temperature; 0 for greedy decoding.
        max_new_tokens: maximum length of a reply; None for the smallest of the models' defaults.
        workers: number of processes that sample replies.
        reveal: show harmful words without redaction.
        draws: number of bootstrap resamples.
        hardware: what the models run on.
    """

    protocol: Protocol = "harm-set"
    baselines: tuple[Baseline, ...] = ()
    shots: Shots = field(default_factory=dict)
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int | None = None
    workers: int = 1
    reveal: bool = False
    draws: int = 1000
    hardware: Hardware = field(default_factory=Hardware)


def score_models(
    models: Mapping[str, Path],
    questions: Sequence[Question],
    *,
    judge: Judge,
    settings: ScoreSettings | None = None,
    out: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Sample the models' replies, judge them, and return CoSA-Scores as plain JSON (`prosocial.cosa_score/1`).

    Args:
        models: folders of checkpoints, steered models or bundles, by name.
        questions: result of `questions_of`.
        judge: judge of the replies, for the protocol in the settings.
        settings: settings; None for the defaults.
        out: folder for the document, the page, the judged replies (redacted) and the sampled replies (not redacted);
            an interrupted run resumes from it. None to write nothing.
        facts: further facts for the report.
        advance: called with the number of sampled replies and the total.

    Raises:
        InputError: there is no model or question, a question is repeated, a model lacks a config, a config has no
            categories under the protocol harm-set, "5-shot" has no examples, the folder has another run, or the judge
            fails on a trial reply.
        ArtefactError: a model is incomplete.
    """
    how = settings or ScoreSettings()
    _require(models, questions, how)
    systems = asked_systems(models, questions, baselines=how.baselines, shots=how.shots)
    limit = how.max_new_tokens or min(_reply_limit(folder) for folder in models.values())
    drawing = Drawing(how.seed, how.temperature, limit)
    with reply_folder(out) as place:
        store = ReplyStore(place, _stamp(models, questions, how, drawing))
        judged = [judged_messages(question, how.protocol) for question in questions]
        rehearsal = partial(rehearse, judge, judged, attributes=("helpfulness",))
        drawn = _Drawn(store, drawing, how, advance, rehearsal)
        verdicts, unread = _verdicts(drawn, systems, questions, CachedJudge(judge, place / JUDGEMENTS_FILE), how)
    all_facts = {"judge": f"{judge.name} {judge.version}", "protocol": how.protocol, **(facts or {}), **asdict(drawing)}
    all_facts |= how.hardware.to_json()
    document = score_document(
        verdicts, configs_of(questions), facts=all_facts, unread=unread, seed=how.seed, draws=how.draws
    )
    if out is not None:
        rows = [{"system": name} | one.to_json(reveal=how.reveal) for name, own in verdicts.items() for one in own]
        write_jsonl(out / REPLIES_FILE, rows)
        write_scores(out, document)
    return document


def _verdicts(
    drawn: "_Drawn", systems: Sequence[AskedSystem], questions: Sequence[Question], judge: Judge, how: ScoreSettings
) -> tuple[dict[str, list[CosaVerdict]], dict[str, int]]:
    """Return the verdicts of every system and baseline, and the number of filter answers that were not yes or no."""
    replies = drawn.rows(systems, drawn.drawing)
    filtered = [
        filter_system(system, questions, replies[system.name])
        for system in systems
        if "cascade" in how.baselines and system.method != "5-shot"
    ]
    answers = drawn.rows(filtered, filter_drawing(drawn.drawing)) if filtered else {}
    verdicts: dict[str, list[CosaVerdict]] = {}
    unread: dict[str, int] = {}
    for system in systems:
        rows = replies[system.name]
        own = [judge_row(question, rows[question.id], judge, how.protocol) for question in questions]
        verdicts[system.name] = own
        filter_rows = answers.get(f"{system.name}.filter")
        if filter_rows is not None:
            passed = [lets_pass(str(filter_rows[question.id]["reply"])) for question in questions]
            unread[f"{system.name} + cascade"] = passed.count(None)
            verdicts[f"{system.name} + cascade"] = [
                verdict.replaced_by_refusal() if passes is False else verdict
                for verdict, passes in zip(own, passed, strict=True)
            ]
        if "cascade-oracle" in how.baselines and system.method != "5-shot":
            verdicts[f"{system.name} + cascade-oracle"] = [
                verdict.replaced_by_refusal() if verdict.is_safe is False else verdict for verdict in own
            ]
    return verdicts, unread


@dataclass
class _Drawn:
    """Samples each reply once, and reports progress."""

    store: ReplyStore
    drawing: Drawing
    how: ScoreSettings
    advance: Advance | None
    rehearse: Callable[[], object]
    n_done: int = 0
    n_total: int = 0

    def rows(self, systems: Sequence[AskedSystem], drawing: Drawing) -> dict[str, Rows]:
        """Return the replies of systems by question id, sampling those that are not in the store."""
        shards = {system.name: system.shards(drawing) for system in systems}
        every = [shard for own in shards.values() for shard in own]
        missing = self.store.missing(every)
        if missing:
            self.rehearse()
        self.n_total += _size(every)
        self.n_done += _size(every) - _size(missing)
        for shard, rows in answer_shards(missing, hardware=self.how.hardware, workers=self.how.workers):
            self.store.add(shard, rows)
            self.n_done += len(rows)
            if self.advance is not None:
                self.advance(self.n_done, self.n_total)
        return {name: {row["probe"]: row for row in self.store.rows(own)} for name, own in shards.items()}


def _size(shards: Sequence[Shard]) -> int:
    return sum(len(shard.requests) for shard in shards)


def _require(models: Mapping[str, Path], questions: Sequence[Question], how: ScoreSettings) -> None:
    """Raise InputError for what cannot be scored, before sampling."""
    identities = {question.id for question in questions}
    if not models or not questions or len(identities) != len(questions):
        raise InputError(
            f"a score should have models and unique questions, found {len(models)} models and {len(questions)} "
            f"questions, {len(identities)} of them unique"
        )
    for question in {question.config: question for question in questions}.values():
        allowed_of(question, how.protocol)
        if "5-shot" in how.baselines and not how.shots.get(question.config.name):
            raise InputError(f"5-shot should have examples for each config, found none for {question.config.name}")


def _stamp(
    models: Mapping[str, Path], questions: Sequence[Question], how: ScoreSettings, drawing: Drawing
) -> dict[str, Any]:
    """Return what determines the stored replies; judge, protocol and cascades may change without resampling."""
    contents = [[question.config.to_json(), question.probe.to_json()] for question in questions]
    return {
        "systems": {name: folder_digest(folder) for name, folder in models.items()},
        "questions": hashlib.sha256(canonical_json(contents).encode()).hexdigest(),
        "shots": hashlib.sha256(canonical_json(dict(how.shots)).encode()).hexdigest(),
        **asdict(drawing),
        **how.hardware.placement.stamp(),
    }


def _reply_limit(folder: Path) -> int:
    """Return a model's default maximum reply length."""
    is_steered = (folder / DECODING_FILE).is_file()
    return (DecodingConfig.read(folder) if is_steered else ReplySettings()).max_new_tokens
