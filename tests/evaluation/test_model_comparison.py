"""Two models from folders to a report: the same however the work is split, and killed work goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.compare import exit_code
from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.judges import RefusalJudge
from prosocial.evaluation.model_comparison import (
    OUTCOMES_FILE,
    ComparisonSettings,
    compare_models,
    folder_digest,
    read_judge_errors,
)
from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.evaluation.sampling import shards, workers
from prosocial.evaluation.statistics import JudgeErrors

SHORT = ComparisonSettings(max_new_tokens=3, seed=1, temperature=1.0, samples=2)


class WordJudge:
    """Calls a reply harmful by the letters of its words, so that there is something to compare."""

    name, version = "words", "1"

    def __init__(self, error: str | None = None) -> None:
        self._error, self.n_asked = error, 0

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        self.n_asked += 1
        if self._error is not None and self.n_asked % 5 == 0:
            return Judgement(error=self._error)
        harmful = sum(map(ord, reply)) % 2 == 0
        return Judgement(frozenset(["other"] if harmful else []), "none", {}, True)


@pytest.fixture
def probes(probes_file: Path) -> list[Probe]:
    return read_probes(probes_file)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 5)


def _compare(base: Path, edited: Path, probes: list[Probe], **more: Any) -> dict[str, Any]:
    return compare_models(base, edited, probes=probes, **{"judge": WordJudge(), "settings": SHORT, **more})


def test_a_killed_comparison_goes_on_and_gives_the_same(
    checkpoint_folder: Path,
    steered_folder: Path,
    probes: list[Probe],
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = _compare(checkpoint_folder, steered_folder, probes, out=tmp_path / "whole")
    answered: list[str] = []
    real = workers.answer_shard

    def dies(shard: shards.Shard, on: Any) -> list[dict[str, Any]]:
        if len(answered) == 4:
            raise KeyboardInterrupt
        answered.append(shard.name)
        return real(shard, on)

    monkeypatch.setattr(workers, "answer_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        _compare(checkpoint_folder, steered_folder, probes, out=tmp_path / "killed")
    monkeypatch.setattr(workers, "answer_shard", lambda shard, on: answered.append(shard.name) or real(shard, on))
    seen: list[tuple[int, int]] = []
    again = _compare(
        checkpoint_folder, steered_folder, probes, out=tmp_path / "killed", advance=lambda *at: seen.append(at)
    )
    assert again == whole
    assert len(answered) == len(set(answered))  # no shard was drawn twice
    assert seen[-1] == (52, 52) and seen[0][0] > 20
    for name in (OUTCOMES_FILE, "report.json", "report.html", "judgements.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "whole" / "replies").stat().st_mode & 0o077 == 0


def test_other_settings_or_models_do_not_go_on_there(
    checkpoint_folder: Path, steered_folder: Path, probes: list[Probe], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _compare(checkpoint_folder, steered_folder, probes[:3], out=out)
    with pytest.raises(InputError, match="seed was 1 and is now 2"):
        settings = ComparisonSettings(max_new_tokens=3, seed=2, temperature=1.0, samples=2)
        _compare(checkpoint_folder, steered_folder, probes[:3], out=out, settings=settings)
    with pytest.raises(InputError, match="systems"):
        _compare(checkpoint_folder, checkpoint_folder, probes[:3], out=out)
    with pytest.raises(InputError, match="probes"):
        _compare(checkpoint_folder, steered_folder, probes[:4], out=out)
    next((out / "replies").iterdir()).write_text('{"probe": "x", "sample": 0}\n')
    with pytest.raises(InputError, match="delete it"):
        _compare(checkpoint_folder, steered_folder, probes[:3], out=out)


def test_samples_of_a_probe_differ_and_count_as_one_cluster(
    checkpoint_folder: Path, steered_folder: Path, probes: list[Probe], tmp_path: Path
) -> None:
    found = _compare(checkpoint_folder, steered_folder, probes, out=tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / OUTCOMES_FILE).read_text().splitlines()]
    assert len(rows) == 2 * 2 * 13
    assert found["comparison"]["n_replies"] == 26
    leak = found["comparison"]["metrics"][0]["rates"]["base"]
    assert (leak["n"], leak["n_clusters"]) == (8, 4)
    replies = {(row["system"], row["probe"], row["sample"]): row["reply"] for row in rows if not row["categories"]}
    assert any(text != replies.get((s, p, 1), text) for (s, p, sample), text in replies.items() if sample == 0)


def test_replies_that_nobody_judged_forbid_a_pass_and_are_asked_again(
    checkpoint_folder: Path, steered_folder: Path, probes: list[Probe], tmp_path: Path
) -> None:
    broken = _compare(checkpoint_folder, steered_folder, probes, out=tmp_path / "out", judge=WordJudge("it timed out"))
    assert sum(broken["comparison"]["n_unjudged"].values()) > 0
    assert any("Not judged" in detail for detail in broken["headline"]["details"])
    assert broken["headline"]["tone"] != "good" and exit_code(broken) != 0
    judge = WordJudge()
    mended = _compare(checkpoint_folder, steered_folder, probes, out=tmp_path / "out", judge=judge)
    assert sum(mended["comparison"]["n_unjudged"].values()) == 0
    assert judge.n_asked < 20  # only those that failed


def test_what_cannot_be_compared_is_refused(checkpoint_folder: Path, probes: list[Probe]) -> None:
    with pytest.raises(InputError, match="at least one probe"):
        _compare(checkpoint_folder, checkpoint_folder, [])
    with pytest.raises(InputError, match="temperature"):
        _compare(checkpoint_folder, checkpoint_folder, probes, settings=ComparisonSettings(samples=2, temperature=0.0))
    with pytest.raises(InputError, match="one worker"):
        list(workers.answer_shards([], workers=0))


def test_digests_tell_folders_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model").write_text("1")
    before = folder_digest(tmp_path / "a")
    (tmp_path / "a" / ".lock").write_text("x")
    assert folder_digest(tmp_path / "a") == before
    (tmp_path / "a" / "model").write_text("2")
    assert folder_digest(tmp_path / "a") != before


def test_errors_of_a_judge_are_read_by_system(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    counts = {"n_events": 50, "found": 45, "n_others": 80, "cleared": 76}
    path.write_text(json.dumps({"base": {"harm": counts}, "edited": {"harm": counts, "refusal": counts}}))
    assert read_judge_errors(path)["edited"]["refusal"] == JudgeErrors(50, 45, 80, 76)
    for wrong, message in (
        ({"other": {}}, "'base' and 'edited'"),
        ({"base": 3}, "'base' and 'edited'"),
        ({"base": {"love": counts}}, "harm, refusal or success"),
        ({"base": {"harm": 3}}, "'n_events'"),
        ({"base": {"harm": counts | {"found": 51}}}, "should be at most n_events"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=message):
            read_judge_errors(path)


@pytest.mark.prove
def test_two_processes_and_a_ray_cluster_give_what_one_process_gives(
    checkpoint_folder: Path, steered_folder: Path, probes: list[Probe], tmp_path: Path
) -> None:
    many = [Probe(f"{probe.id}-{k}", probe.messages, probe.kind) for k in range(4) for probe in probes]
    ways: dict[str, dict[str, Any]] = {"one": {}, "processes": {"workers": 2}, "ray": {"workers": 2, "ray": "local"}}
    for name, more in ways.items():
        settings = ComparisonSettings(max_new_tokens=3, seed=1, temperature=1.0, samples=2, **more)
        _compare(
            checkpoint_folder, steered_folder, many, settings=settings, judge=RefusalJudge("other"), out=tmp_path / name
        )
    for name in ("processes", "ray"):
        for file in (
            OUTCOMES_FILE,
            "report.json",
            *(f"replies/{p.name}" for p in (tmp_path / "one/replies").iterdir()),
        ):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), (name, file)
    assert len(list((tmp_path / "ray" / "replies").iterdir())) == 8
