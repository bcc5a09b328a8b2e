"""A sweep: seeded, stopped where hopeless, resumed after a kill, and what it writes is what it measured."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from prosocial.cli.main import app
from prosocial.core.errors import FingerprintError, InputError
from prosocial.core.protocols import Judgement, Message
from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.editing.edits import read_record
from prosocial.evaluation.probes.probe import read_probes
from prosocial.evaluation.sweep import Answering, Limits, Parents, SearchSpace, Sweep, Trial
from prosocial.evaluation.sweep.journal import N_RANDOM
from prosocial.evaluation.sweep.sweep_page import render_sweep
from prosocial.evaluation.sweep.terminal import summary

N_TRIALS = 13  # beyond the random ones, so that the sampler's learning is part of it
SPACE = SearchSpace(("plain", "top_k"), scale=(0.05, 4.0))


class WordJudge:
    """Finds harm in replies with words of a low number, and success in all others."""

    name, version = "words", "1"

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        numbers = [int(word) for word in re.findall(r"word(\d+)", reply)]
        harmful = sum(numbers) % 2 == 0
        return Judgement(frozenset(["violence"] if harmful else []), "none", success=len(numbers) > 2)


class CountingJudge(WordJudge):
    n_judged = 0

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        self.n_judged += 1
        return super().judge(messages, reply)


@pytest.fixture(scope="session")
def parents(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    """The pico checkpoint and a copy of it that was moved a little."""
    folder = tmp_path_factory.mktemp("sweep")
    model = load_model(checkpoint_folder)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder / "harmful")
    return Parents(checkpoint_folder, (folder / "harmful",))


def _sweep(parents: Parents, probes: Path, out: Path, **more: Any) -> Sweep:
    given: dict[str, Any] = {"space": SPACE, "judge": WordJudge(), "limits": Limits(max_kl=0.5, max_utility_loss=0.2)}
    given |= {"answering": Answering(max_new_tokens=4)} | more
    return Sweep(parents, probes=read_probes(probes), out=out, **given)


@pytest.fixture(scope="session")
def probes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Probes in the tokenizer's words."""
    rows = [
        {"id": f"{kind}{index}", "kind": kind, "text": f"word{7 * index + shift} word{index}", "cluster": f"c{index}"}
        for index in range(4)
        for shift, kind in enumerate(("harmful", "twin", "benign"))
    ]
    path = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(
    parents: Parents, probes_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sweep, list[Trial], Path]:
    """A sweep that ran without a stop."""
    out = tmp_path_factory.mktemp("sweeps") / "finished"
    search = _sweep(parents, probes_file, out)
    return search, search.run(N_TRIALS), out


def test_what_is_left_of_a_sweep(finished: tuple[Sweep, list[Trial], Path]) -> None:
    search, trials, out = finished
    document = json.loads((out / "trials.json").read_text(encoding="utf-8"))

    assert document == search.document(trials)
    assert document["schema"] == "prosocial.sweep/1"
    assert [row["number"] for row in document["trials"]] == list(range(N_TRIALS))
    assert all(row["inner_product"] <= 0 for row in document["trials"])
    assert len({row["fingerprint"] for row in document["trials"]}) > 5
    assert {path.name for path in out.iterdir()} == {"trials.json", "sweep.html", "journal.jsonl"}
    assert str(out.parent) not in (out / "trials.json").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_trials(
    finished: tuple[Sweep, list[Trial], Path], parents: Parents, probes_file: Path, tmp_path: Path
) -> None:
    again = _sweep(parents, probes_file, tmp_path / "again").run(N_TRIALS)
    other = _sweep(parents, probes_file, tmp_path / "other", seed=1).run(3)

    assert again == finished[1]
    assert other != again[:3]


def test_neighbours_of_the_best_are_new(finished: tuple[Sweep, list[Trial], Path]) -> None:
    choices = [trial.choice for trial in finished[1]]
    neighbours = range(N_RANDOM, len(choices), 2)

    assert neighbours
    assert all(choices[number] not in choices[:number] for number in neighbours)


class Killed(BaseException):
    """Stands for the end of a process."""


def test_an_interrupted_sweep_goes_on_to_the_same_trials(
    finished: tuple[Sweep, list[Trial], Path], parents: Parents, probes_file: Path, tmp_path: Path
) -> None:
    class FailingJudge(WordJudge):
        left = 500

        def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().judge(messages, reply)

    out = tmp_path / "killed"
    judge = FailingJudge()
    for lines in (40, 60, 55):
        with pytest.raises(Killed):
            judge.left = lines
            _sweep(parents, probes_file, out, judge=judge).run(N_TRIALS)
        with (out / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"op_code": 4, "worker')  # a line that was cut
    resumed = _sweep(parents, probes_file, out).run(N_TRIALS)

    assert resumed == finished[1]
    assert (out / "trials.json").read_bytes() == (finished[2] / "trials.json").read_bytes()


def test_a_finished_sweep_runs_nothing_again(
    finished: tuple[Sweep, list[Trial], Path], parents: Parents, probes_file: Path
) -> None:
    judge = CountingJudge()
    search = _sweep(parents, probes_file, finished[2], judge=judge)
    base_only = judge.n_judged
    told: list[Trial] = []

    assert search.run(N_TRIALS, on_trial=told.append) == finished[1] == told
    assert judge.n_judged == base_only


class SilentJudge(WordJudge):
    """Can judge no reply to these requests."""

    def __init__(self, *silent: str) -> None:
        self._silent = silent

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        if messages[-1]["content"] in self._silent:
            return Judgement(error="it timed out")
        return Judgement(success=True)


def test_replies_that_could_not_be_judged_count_as_harmful_and_are_told(
    parents: Parents, probes_file: Path, tmp_path: Path
) -> None:
    harmful = [probe.text for probe in read_probes(probes_file) if probe.kind == "harmful"]
    search = _sweep(parents, probes_file, tmp_path / "out", judge=SilentJudge(harmful[0]), limits=Limits(max_kl=99.0))
    (trial,) = search.run(1)
    document = search.document([trial])

    assert search.base_harm.estimate == 0.25 and document["base"]["n_unjudged"] == 1
    assert trial.harm is not None and (trial.harm.estimate, trial.n_unjudged) == (0.25, 1)
    assert Trial.from_json(document["trials"][0]) == trial
    assert "Not judged, and counted as harmful: 1 and 1 replies" in summary(document, 0)
    with pytest.raises(InputError, match=r"judge words 1 should judge a trial reply before any is drawn"):
        _sweep(parents, probes_file, tmp_path / "none", judge=SilentJudge(*harmful))


def test_a_hopeless_trial_is_stopped_before_any_reply(parents: Parents, probes_file: Path, tmp_path: Path) -> None:
    judge = CountingJudge()
    search = _sweep(parents, probes_file, tmp_path / "out", judge=judge, limits=Limits(max_kl=1e-9))
    before = judge.n_judged
    trials = search.run(6)

    assert {trial.state for trial in trials if trial.choice.scale > 0} == {"pruned"}
    assert judge.n_judged == before
    assert all(trial.kl > 1e-9 and trial.harm is None for trial in trials)


def test_what_is_written_is_what_was_measured(finished: tuple[Sweep, list[Trial], Path], tmp_path: Path) -> None:
    search, trials, _ = finished
    trial = next(trial for trial in trials if trial.choice.method == "top_k" and trial.choice.ramp != (1.0, 1.0))
    record = search.write(trial, tmp_path / "edited")

    assert Checkpoint.open(tmp_path / "edited").fingerprint() == trial.fingerprint == record.result.fingerprint
    assert read_record(tmp_path / "edited").result.inner_product < 0
    assert (tmp_path / "edited-vector" / "vector.json").is_file()


def test_a_checkpoint_that_is_another_is_not_left_behind(
    finished: tuple[Sweep, list[Trial], Path], tmp_path: Path
) -> None:
    search, trials, _ = finished
    first, second = trials[0], next(trial for trial in trials if trial.fingerprint != trials[0].fingerprint)
    mixed = Trial(first.number, first.choice, second.fingerprint, first.inner_product, first.kl)
    with pytest.raises(FingerprintError):
        search.write(mixed, tmp_path / "edited")

    assert not (tmp_path / "edited").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 3}, "seed"), ({"limits": Limits(max_kl=0.7)}, "max_kl"), ({"answering": Answering(7)}, "answering")],
)
def test_another_sweep_in_the_folder_is_refused(
    finished: tuple[Sweep, list[Trial], Path], parents: Parents, probes_file: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=f"same settings.*{named} was"):
        _sweep(parents, probes_file, finished[2], **change).run(N_TRIALS)


def test_two_processes_do_not_share_a_folder(parents: Parents, probes_file: Path, tmp_path: Path) -> None:
    first, second = (_sweep(parents, probes_file, tmp_path / "out") for _ in range(2))

    def intrude(trial: Trial) -> None:
        with pytest.raises(InputError, match="another process"):
            second.run(1)

    assert len(first.run(1, on_trial=intrude)) == 1


@pytest.mark.parametrize("kind", ["harmful", "benign"])
def test_probes_of_both_kinds_are_needed(parents: Parents, probes_file: Path, tmp_path: Path, kind: str) -> None:
    rows = [row for row in probes_file.read_text().splitlines() if f'"kind": "{kind}"' not in row]
    fewer = tmp_path / "probes.jsonl"
    fewer.write_text("\n".join(rows))
    with pytest.raises(InputError, match=f"have {kind} probes"):
        _sweep(parents, fewer, tmp_path / "out")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.circles = 0
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.circles += tag == "circle"
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]


def test_the_page_draws_every_finished_trial_and_needs_nothing(finished: tuple[Sweep, list[Trial], Path]) -> None:
    search, trials, out = finished
    text = (out / "sweep.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    n_complete = sum(trial.state == "complete" for trial in trials)

    assert page.circles == 2 * (n_complete + 1)  # two pictures, the base in each
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.outside == []
    assert not re.findall(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text
    assert text == render_sweep(search.document(trials))


@pytest.mark.parametrize("case", ["all stopped", "no utility", "nasty"])
def test_the_page_renders_whatever_happened(finished: tuple[Sweep, list[Trial], Path], case: str) -> None:
    document = json.loads(json.dumps(finished[0].document(finished[1])))
    nasty = "<script>alert(1)</script>"
    if case == "all stopped":
        for row in document["trials"]:
            row |= {"state": "pruned", "harm": None, "utility": None, "utility_lost": None}
        document |= {"front": [], "best": None}
    elif case == "no utility":
        for row in document["trials"]:
            row |= {"utility": None, "utility_lost": None}
    else:
        document["trials"][0]["label"] = nasty
    text = render_sweep(document)

    assert nasty not in text
    assert text.count("<figure") == {"all stopped": 0, "no utility": 1, "nasty": 2}[case]


def _command(parents: Parents, probes: Path, out: Path, *more: str) -> list[str]:
    words = ["sweep", str(parents.base), "--harmful", str(parents.harmful[0]), "--probes", str(probes)]
    return [*words, "-o", str(out), "--trials", "3", "--max-new-tokens", "3", *more]


def _run(words: list[str]) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "100"})


def test_the_command_searches_prints_and_writes(parents: Parents, probes_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = _run(_command(parents, probes_file, out, "--pick", "2"))
    document = json.loads((out / "trials.json").read_text(encoding="utf-8"))

    assert shown.exit_code == 0, shown.output
    assert "Pareto front" in shown.output
    assert "wrote trial 2" in shown.output
    assert Checkpoint.open(out / "edited-2").fingerprint() == document["trials"][2]["fingerprint"]
    as_json = _run(_command(parents, probes_file, out, "--json"))
    assert json.loads(as_json.stdout) == document


def test_the_command_refuses_a_method_it_has_no_range_for(parents: Parents, probes_file: Path, tmp_path: Path) -> None:
    shown = _run(_command(parents, probes_file, tmp_path / "out", "--methods", "plain,project"))

    assert isinstance(shown.exception, InputError)
    assert "project should be given utility" in str(shown.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.prove
def test_a_killed_process_goes_on_to_the_same_trials(parents: Parents, probes_file: Path, tmp_path: Path) -> None:
    program = "import sys; from prosocial.cli.main import main; sys.exit(main(sys.argv[1:]))"
    straight, killed = tmp_path / "straight", tmp_path / "killed"

    def words(out: Path) -> list[str]:
        return [sys.executable, "-c", program, *_command(parents, probes_file, out, "--trials", "14")]

    subprocess.run(words(straight), check=True, capture_output=True)
    for _ in range(3):
        process = subprocess.Popen(words(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal, size = killed / "journal.jsonl", _size(killed / "journal.jsonl")
        while process.poll() is None and _size(journal) < size + 6000:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(words(killed), check=True, capture_output=True)

    assert (killed / "trials.json").read_bytes() == (straight / "trials.json").read_bytes()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
