"""Every command that writes, killed at random times: nothing half-written looks finished, and the next run succeeds.

The number of kills of each command is 30, or that of the variable PROSOCIAL_KILLS.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prosocial.cli.main import main
from prosocial.core.files import read_json
from prosocial.core.signing import TrustedKey
from prosocial.editing.checkpoints import Checkpoint
from prosocial.export.bundle_files.manifest import check_manifest
from prosocial.steering import CompactHead, HarmGate
from prosocial.verify.bundle_parity import read_measurement_of
from prosocial.verify.signing import check_chain

from ..fork_server import ForkServer
from ..hub.hub_fixture import LoopbackHub, point_client_at
from ..hub_helpers import NAME, make_folder
from ..recipes.pico_recipe import write_recipe
from ..signing_helpers import make_key

pytestmark = [
    pytest.mark.prove,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
N_KILLS = int(os.environ.get("PROSOCIAL_KILLS", "30"))
Check = Callable[[Path], object]


@dataclass(frozen=True)
class Command:
    """A command that writes `out`.

    Attributes:
        words: the command; its working folder is that of the fixture `place`.
        check: raises an error unless an output that looks finished is whole.
        looks_finished: file in the output that says so; "" if the folder itself does.
        resumes: whether the command may be repeated over its own output.
    """

    words: str
    check: Check
    looks_finished: str = ""
    resumes: bool = False

    def is_finished(self, out: Path) -> bool:
        """Return whether an output looks finished."""
        return (out / self.looks_finished).exists() if self.looks_finished else out.exists()


def check_run(out: Path) -> None:
    assert read_json(out / "report" / "report.json")["parity"]["verdict"] == "pass"
    for stage in ("vector", "edit", "gate", "head", "bundle"):
        assert any((out / stage).iterdir())


def check_verified(out: Path) -> None:
    assert read_json(out / "parity.json")["verdict"] == "pass"
    read_measurement_of(out.parent / "bundle", out / "measurements.npz")
    assert (out / "parity.html").read_text().rstrip().endswith("</html>")


def check_compared(out: Path) -> None:
    assert read_json(out / "report.json")["schema"].startswith("prosocial.report/")
    assert (out / "report.html").read_text().rstrip().endswith("</html>")


def check_signed(out: Path) -> None:
    report = check_chain(
        out, keys=[TrustedKey.read(out.parent / "own.pub")], allow_missing=["edit", "export", "parity", "audit"]
    )
    assert report.verdict == "pass", report


COMMANDS = {
    "export": Command("export steered -o {out}", check_manifest),
    "verify": Command(
        "verify bundle --reference steered --max-new-tokens 2 -o {out}", check_verified, "parity.json", resumes=True
    ),
    "compare": Command(
        "compare base edited --probes probes.jsonl --max-new-tokens 2 -o {out}", check_compared, "report.json", True
    ),
    "sweep": Command(
        "sweep base --harmful edited --probes probes.jsonl --trials 2 --max-new-tokens 2 -o {out}",
        lambda out: read_json(out / "trials.json"),
        "trials.json",
        resumes=True,
    ),
    "tune": Command(
        "tune base --rows chat.jsonl --method sft --set most_steps=2 --set batch_size=2 --out {out}",
        lambda out: Checkpoint.open(out).fingerprint(),
    ),
    "gate": Command(
        "gate train edited --replies replies.jsonl --set rank=4 --set steps=20 --set batch_size=32 -o {out}",
        HarmGate.load,
    ),
    "distil": Command(
        "distil edited --reward reward --pairs pairs.jsonl --max-new-tokens 3 --set rank=4 --set steps=5 "
        "--set passes=1 --set on_policy=2 --set plausible_k=16 -o {out}",
        CompactHead.load,
    ),
    "run": Command("run recipe.yaml --out {out}", check_run, "report", resumes=True),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands read, made by one run of a pico recipe."""
    folder = tmp_path_factory.mktemp("killed")
    recipe = write_recipe(folder)
    assert main(["run", str(recipe), "--out", str(folder / "made")]) == 0
    names = {"edit": "edited", "reward": "reward", "steered": "steered", "bundle": "bundle"}
    for stage, name in names.items():
        shutil.copytree((folder / "made" / stage).resolve(), folder / name)
    (folder / "model").rename(folder / "base")
    recipe.write_text(recipe.read_text().replace(str(folder / "model"), str(folder / "base")))
    for path in (folder / "data").iterdir():
        shutil.copy(path, folder / path.name)
    row = (
        '{"messages": [{"role": "user", "content": "how do i bake bread?"}, {"role": "assistant", "content": "mix."}]}'
    )
    (folder / "chat.jsonl").write_text(f"{row}\n" * 4)
    make_key(folder, "own")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ForkServer]:
    with ForkServer(place, place / "log.txt") as server:
        yield server


@pytest.fixture(scope="module")
def second(place: Path) -> Iterator[ForkServer]:
    with ForkServer(place, place / "log-2.txt") as server:
        yield server


def kill_at_random_times(
    server: ForkServer, words: list[str], *, name: str, after: Callable[[], None], n_kills: int = N_KILLS
) -> int:
    """Run a command once, then kill it `n_kills` times at random times; return how many kills came before its end."""
    draw, started = random.Random(name), time.monotonic()
    assert server.run(words) == 0, server.log.read_text()[-2000:]
    seconds, n_killed = time.monotonic() - started, 0
    after()
    for _ in range(n_kills):
        process = server.start(words)
        time.sleep(draw.uniform(0.0, seconds))
        with contextlib.suppress(ProcessLookupError):
            server.kill(process)
        code = server.wait()
        assert code in (0, -signal.SIGKILL), server.log.read_text()[-2000:]
        n_killed += code != 0
        after()
    return n_killed


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_nothing_that_looks_finished(place: Path, server: ForkServer, name: str) -> None:
    command, out = COMMANDS[name], place / f"out-{name}"
    words = command.words.format(out=out.name).split()

    def after() -> None:
        if command.is_finished(out):
            command.check(out)
            shutil.rmtree(out)

    n_killed = kill_at_random_times(server, words, name=name, after=after)
    assert n_killed >= N_KILLS // 4, "the kills should hit the command at work"
    assert server.run(words) == 0, server.log.read_text()[-2000:]
    command.check(out)
    assert [path.name for path in place.glob(f".{out.name}*")] == [], "nothing is left beside the output"


@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once_on_one_output_leave_a_whole_one(
    place: Path, server: ForkServer, second: ForkServer, name: str
) -> None:
    command, out = COMMANDS[name], place / f"both-{name}"
    words = command.words.format(out=out.name).split()
    for each in (server, second):
        each.start(words)
    codes = [each.wait() for each in (server, second)]
    assert sorted(codes) in ([0, 0], [0, 2]), [each.log.read_text()[-2000:] for each in (server, second)]
    for code, each in zip(codes, (server, second), strict=True):
        if code:
            said = each.log.read_text().splitlines()
            assert said[-1].startswith("error: ") and "Traceback" not in "".join(said), said
    command.check(out)
    assert [path.name for path in place.glob(f".{out.name}*")] == []


def test_a_killed_signature_is_absent_or_whole(place: Path, server: ForkServer) -> None:
    out = place / "signed"
    shutil.copytree(place / "bundle", out)
    words = ["sign", "signed", "--key", "own.pem", "--again"]

    def after() -> None:
        if (out / "model.sig").exists():
            check_signed(out)

    assert kill_at_random_times(server, words, name="sign", after=after) >= N_KILLS // 4
    assert server.run(words) == 0, server.log.read_text()[-2000:]
    check_signed(out)


def test_a_killed_publication_is_absent_or_whole(place: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    with pytest.MonkeyPatch.context() as patch, LoopbackHub() as hub:
        point_client_at(hub, tmp_path / "home", patch)
        words = ["publish", str(folder), NAME, "--license", "mit"]

        def after() -> None:
            repository = hub.repositories.get(NAME)
            names = set() if repository is None else set(repository.files("main"))
            assert not names - {".gitattributes"} or {"manifest.json", "model.onnx", "README.md"} <= names
            hub.repositories.pop(NAME, None)

        with ForkServer(tmp_path, tmp_path / "log.txt") as server:
            kill_at_random_times(server, words, name="publish", after=after)
            assert server.run(words) == 0, server.log.read_text()[-2000:]
            assert server.run(words) == 0, "a second publication finds everything there"
