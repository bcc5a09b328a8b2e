"""Every command that writes, killed at any moment and started twice at once.

Nothing half-written looks finished, the next run succeeds, what was finished stays, and no temporary file is left. The
number of kills of each command is 30, or that of the variable PROSOCIAL_KILLS: by turns at a time and before a write,
both spread evenly over the command, at random in each part.
"""

import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prosocial.core.files import read_json, read_jsonl
from prosocial.core.signing import TrustedKey
from prosocial.steering.audit_log.log import check_log
from prosocial.steering.authorisation.trust import TrustFile

from ..fork_server import ForkServer, Started
from ..hub.hub_fixture import LoopbackHub, point_client_at
from ..hub_helpers import NAME, make_folder
from .killed_commands import COMMANDS, check_signed, make_place

pytestmark = [
    pytest.mark.prove,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
N_KILLS = int(os.environ.get("PROSOCIAL_KILLS", "30"))
N_PAIRS = 1 + N_KILLS // 10
BAD_INPUT = 2
Words = Callable[[int], list[str]]
After = Callable[[int, Started], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("killed")
    with ForkServer(folder, tmp_path_factory.mktemp("printed")) as server:
        make_place(folder, server)
        yield server


@pytest.fixture
def place(server: ForkServer) -> Iterator[Path]:
    """The folder that the commands work in; they change nothing that was there, and leave nothing temporary."""
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(server.folder)}
    yield server.folder
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    for path in server.folder.iterdir():
        if path.name.startswith("out-"):
            delete(path)


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def delete(out: Path) -> None:
    """Delete an output and the files beside it that a command writes too, such as OUT.patch."""
    for path in [out, *out.parent.glob(f"{out.name}.*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def left_over(out: Path) -> list[str]:
    """Return the temporary files beside an output and in it."""
    found = [*out.parent.glob(f".{out.name}*"), *out.parent.glob(".*.tmp"), *out.rglob("*.tmp")]
    return [path.name for path in [*found, *out.rglob("*.lock"), *out.rglob("*.partial")]]


def kill_often(server: ForkServer, words: Words, after: After, *, name: str, codes: tuple[int, ...] = (0,)) -> None:
    """Run a command once, then kill it again and again.

    Args:
        server: starts the command.
        words: the command, by its number.
        after: called with the number of each command and the command.
        name: seed of the moments.
        codes: exit codes of a command that has succeeded.
    """
    draw, started, n_killed = random.Random(name), time.monotonic(), 0
    first = server.run(words(0))
    seconds = time.monotonic() - started
    assert first.code in codes, first.printed[-2000:]
    after(0, first)
    for number in range(1, N_KILLS + 1):
        moment = (number - draw.random()) / N_KILLS
        by_time = number % 2 == 0
        command = server.start(words(number), dies_at=None if by_time else 1 + int(moment * first.n_writes))
        if by_time:
            time.sleep(moment * seconds)
            command.kill()
        assert command.wait() in (*codes, -signal.SIGKILL), command.printed[-2000:]
        n_killed += command.code == -signal.SIGKILL
        after(number, command)
    print(f"\n{name}: {seconds:.2f} s, {first.n_writes} writes, {n_killed} of {N_KILLS} killed at work", end=" ")
    assert n_killed >= N_KILLS // 4, "the kills should hit the command at work"


def two_at_once(server: ForkServer, words: Words, *, seconds: float, codes: tuple[int, ...] = (0,)) -> list[Started]:
    """Start two commands, the second some seconds later: one of them succeeds, the other too or with one line."""
    both = [server.start(words(0))]
    time.sleep(seconds)
    both.append(server.start(words(1)))
    for each in both:
        each.wait()
        assert each.code in (*codes, BAD_INPUT), each.printed[-2000:]
        assert "Traceback" not in each.printed
        if each.code == BAD_INPUT:
            assert each.printed.splitlines()[-1].startswith("error: "), each.printed[-2000:]
    assert any(each.code in codes for each in both), [each.printed[-2000:] for each in both]
    return both


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_nothing_that_looks_finished(server: ForkServer, place: Path, name: str) -> None:
    command, out = COMMANDS[name], place / f"out-{name.replace(' ', '-')}"
    words = command.words.format(out=out.name).split()

    def after(number: int, started: Started) -> None:
        if started.code in command.codes:
            assert command.is_finished(out)
        if command.is_finished(out):
            command.check(out)
            delete(out)

    kill_often(server, lambda number: words, after, name=name, codes=command.codes)
    last = server.run(words)
    assert last.code in command.codes, last.printed[-2000:]
    command.check(out)
    assert left_over(out) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once_on_one_output_leave_a_whole_one(server: ForkServer, place: Path, name: str) -> None:
    command, out = COMMANDS[name], place / f"out-{name.replace(' ', '-')}"
    words = command.words.format(out=out.name).split()
    draw, started, seconds = random.Random(name), time.monotonic(), 0.0
    for _ in range(N_PAIRS):
        two_at_once(server, lambda number: words, seconds=draw.uniform(0.0, seconds / 2), codes=command.codes)
        seconds = seconds or time.monotonic() - started
        command.check(out)
        assert left_over(out) == []
        delete(out)


def test_a_killed_signature_is_absent_or_whole(server: ForkServer, place: Path) -> None:
    out = place / "out-signed"
    shutil.copytree(place / "bundle", out)
    words = ["sign", out.name, "--key", "own.pem", "--again"]

    def after(number: int, started: Started) -> None:
        if (out / "model.sig").exists():
            check_signed(out)

    kill_often(server, lambda number: words, after, name="sign")
    assert server.run(words).code == 0
    check_signed(out)
    assert left_over(out) == []
    for _ in range(N_PAIRS):
        two_at_once(server, lambda number: words, seconds=0.0)
        check_signed(out)


def test_revocations_are_never_lost(server: ForkServer, place: Path) -> None:
    out, revoked = place / "out-trust.json", set[str]()
    shutil.copy(place / "trust.json", out)

    def words(number: int) -> list[str]:
        return ["config", "revoke", out.name, "--serial", f"{number:032x}"]

    def after(number: int, started: Started) -> None:
        if started.code == 0:
            revoked.add(f"{number:032x}")
        assert revoked <= set(TrustFile.read(out).revoked_serials)

    kill_often(server, words, after, name="revoke")
    for round_ in range(1, N_PAIRS + 1):
        numbers = [1000 * round_, 1000 * round_ + 1]
        both = two_at_once(server, lambda number, numbers=numbers: words(numbers[number]), seconds=0.0)  # type: ignore[misc]
        for number, started in zip(numbers, both, strict=True):
            assert started.code == 0
            after(number, started)
    assert left_over(out) == []


def test_a_delegation_is_absent_or_whole(server: ForkServer, place: Path) -> None:
    out = place / "out-delegating"
    shutil.copytree(place / "bundle", out)
    words = ["config", "delegate", "trust.json", "--bundle", out.name, "--key", "own.pem", "--valid-days", "1"]

    def after(number: int, started: Started) -> None:
        if (out / "delegation.json").exists():
            assert read_json(out / "delegation.json")["dsseEnvelope"]

    kill_often(server, lambda number: words, after, name="delegate")
    for _ in range(N_PAIRS):
        two_at_once(server, lambda number: words, seconds=0.0)
        after(0, server.run(words))
    assert left_over(out) == []


def test_a_log_has_the_line_of_every_reply_that_was_shown(server: ForkServer, place: Path) -> None:
    log, keys, n_shown = place / "out-log.jsonl", [TrustedKey.read(place / "own.pub")], 0
    logging = ["--log", log.name, "--log-key", "own.pem"]
    words = ["generate", "bundle", "--batch-file", "prompts.jsonl", "--max-new-tokens", "1", *logging]

    def requests() -> int:
        return sum(row["event"]["kind"] == "request" for row in read_jsonl(log))

    def after(number: int, started: Started) -> None:
        nonlocal n_shown
        n_shown += sum(line.startswith('{"reply"') for line in started.printed.splitlines())
        report = check_log(log, place / "out-log.jsonl.head.json", keys)
        assert report.verdict == "pass" or report.interrupted, report
        assert report.problems == ()

    kill_often(server, lambda number: words, after, name="log")
    for _ in range(N_PAIRS):
        for number, started in enumerate(two_at_once(server, lambda number: words, seconds=0.0)):
            assert started.code == 0
            after(number, started)
    assert server.run(words).code == 0
    assert check_log(log, place / "out-log.jsonl.head.json", keys).verdict == "pass"
    assert requests() >= n_shown > 0
    assert left_over(log) == []


def test_a_witness_is_never_torn(server: ForkServer, place: Path) -> None:
    out, n_written = place / "out-witness.jsonl", 0
    made = ["generate", "bundle", "hello", "--max-new-tokens", "1", "--log", "out-seen.jsonl", "--log-key", "own.pem"]
    assert server.run(made).code == 0
    words = ["log", "witness", "out-seen.jsonl", "--key", "own.pub", "-o", out.name]

    def after(number: int, started: Started) -> None:
        nonlocal n_written
        n_written += started.code == 0

    kill_often(server, lambda number: words, after, name="witness")
    for _ in range(N_PAIRS):
        for started in two_at_once(server, lambda number: words, seconds=0.0):
            after(0, started)
    after(0, server.run(words))
    assert len(read_jsonl(out)) >= n_written
    assert left_over(out) == []


def test_a_killed_publication_is_absent_or_whole(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_folder(tmp_path / "folder")
    with pytest.MonkeyPatch.context() as patch, LoopbackHub() as hub:
        point_client_at(hub, tmp_path / "home", patch)
        words = ["publish", str(folder), NAME, "--license", "mit"]

        def after(number: int, started: Started) -> None:
            repository = hub.repositories.get(NAME)
            names = set() if repository is None else set(repository.files("main"))
            assert not names - {".gitattributes"} or {"manifest.json", "model.onnx", "README.md"} <= names
            if number % 3 == 0:  # otherwise the next one goes on with what is there
                hub.repositories.pop(NAME, None)

        with ForkServer(tmp_path, tmp_path_factory.mktemp("printed")) as server:
            kill_often(server, lambda number: words, after, name="publish")
            for _ in range(2):  # the second finds everything there
                last = server.run(words)
                assert last.code == 0, last.printed[-2000:]
            for _ in range(N_PAIRS):
                hub.repositories.pop(NAME, None)
                two_at_once(server, lambda number: words, seconds=0.0)
                assert server.run(words).code == 0
                after(1, last)
            assert left_over(folder) == []


def test_a_killed_card_is_absent_or_whole(server: ForkServer, place: Path) -> None:
    out = make_folder(place / "out-carded")
    words = ["publish", out.name, NAME, "--license", "mit", "--write-card"]

    def after(number: int, started: Started) -> None:
        if (out / "README.md").exists():
            assert (out / "README.md").read_text().startswith("---\n")

    kill_often(server, lambda number: words, after, name="card")
    for _ in range(N_PAIRS):
        two_at_once(server, lambda number: words, seconds=0.0)
        after(0, server.run(words))
    assert left_over(out) == []
