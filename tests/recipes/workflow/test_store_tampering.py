"""A result is reused only if it has exactly the bytes that its stage wrote."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from prosocial.recipes.workflow.runner import RunResult, execute, plan_run
from prosocial.recipes.workflow.stage import Stage, StageContext, Upstream
from prosocial.recipes.workflow.store import CLOCK_STEP_NS, Store

CONTENT = b"gate closed" * 100


class Chain:
    """Two stages: one writes a gate, the other copies it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.runs, self.printed = folder / "store", list[str](), io.StringIO()

    def run(self, *, word: str = "a") -> RunResult:
        self.runs.clear()
        stages = [
            Stage(name="gate", title="make a gate", run=self._gate),
            Stage(
                name="model", title="use it", run=self._model, inputs={"gate": Upstream("gate")}, parameters={"w": word}
            ),
        ]
        return execute(plan_run(stages, self.store), Console(file=self.printed, width=200))

    def _gate(self, context: StageContext) -> str:
        self.runs.append("gate")
        (context.out / "gate.bin").write_bytes(CONTENT)
        (context.out / "deep").mkdir()
        (context.out / "deep" / "config.json").write_text("{}")
        return "made"

    def _model(self, context: StageContext) -> str:
        self.runs.append("model")
        (context.out / "model.bin").write_bytes((context.inputs["gate"] / "gate.bin").read_bytes())
        return "used"


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def flip(path: Path, at: int = -1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def flip_and_set_back_the_clock(folder: Path) -> None:
    before = (folder / "gate.bin").stat()
    flip(folder / "gate.bin")
    os.utime(folder / "gate.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(folder: Path) -> None:
    before = (folder / "gate.bin").stat()
    (folder / "x").write_bytes(CONTENT.replace(b"closed", b"opened"))
    os.utime(folder / "x", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "x").replace(folder / "gate.bin")


def replace_by_link(folder: Path) -> None:
    (folder.parents[1] / "evil").write_bytes(CONTENT.replace(b"closed", b"opened"))
    (folder / "gate.bin").unlink()
    (folder / "gate.bin").symlink_to(folder.parents[1] / "evil")


def replace_by_folder(folder: Path) -> None:
    (folder / "gate.bin").unlink()
    (folder / "gate.bin").mkdir()


def link_to_folder(folder: Path) -> None:
    (folder.parents[1] / "elsewhere").mkdir()
    (folder / "more").symlink_to(folder.parents[1] / "elsewhere")


def swap(folder: Path) -> None:
    (folder / "gate.bin").rename(folder / "x")
    (folder / "deep" / "config.json").rename(folder / "gate.bin")
    (folder / "x").rename(folder / "deep" / "config.json")


def change_marker(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        path = folder.with_name(folder.name + ".json")
        marker = json.loads(path.read_text())
        change(marker)
        path.write_text(json.dumps(marker))

    return attack


ATTACKS: dict[str, Callable[[Path], object]] = {
    "last byte changed": lambda folder: flip(folder / "gate.bin"),
    "first byte changed": lambda folder: flip(folder / "gate.bin", 0),
    "byte in the middle changed": lambda folder: flip(folder / "gate.bin", len(CONTENT) // 2),
    "byte changed and mtime set back": flip_and_set_back_the_clock,
    "replaced by rename, same size and mtime": replace_by_rename,
    "file of a sub-folder changed": lambda folder: (folder / "deep" / "config.json").write_text("[]"),
    "file added": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "hidden file added": lambda folder: (folder / ".extra").write_text(""),
    "file added in a sub-folder": lambda folder: (folder / "deep" / "more").write_text(""),
    "link added": lambda folder: (folder / "more").symlink_to("gate.bin"),
    "dangling link added": lambda folder: (folder / "more").symlink_to("nowhere"),
    "link to a folder added": link_to_folder,
    "pipe added": lambda folder: os.mkfifo(folder / "pipe"),
    "replaced by a link": replace_by_link,
    "replaced by a folder": replace_by_folder,
    "two files swapped": swap,
    "removed": lambda folder: (folder / "gate.bin").unlink(),
    "renamed": lambda folder: (folder / "gate.bin").rename(folder / "gate.bin.old"),
    "cut": lambda folder: os.truncate(folder / "gate.bin", 10),
    "grown": lambda folder: os.truncate(folder / "gate.bin", len(CONTENT) + 1),
    "emptied": lambda folder: (folder / "gate.bin").write_bytes(b""),
    "marker that lists sizes": change_marker(lambda m: m.update(files={"gate.bin": len(CONTENT)})),
    "marker that lists no files": change_marker(lambda m: m.update(files={})),
    "marker without files": change_marker(lambda m: m.pop("files")),
    "marker with files as a list": change_marker(lambda m: m.update(files=["gate.bin"])),
    "marker without a summary": change_marker(lambda m: m.pop("summary")),
    "marker with seconds as text": change_marker(lambda m: m.update(seconds="1")),
    "marker with accepted as text": change_marker(lambda m: m.update(accepted="x")),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_changed_result_is_noticed_and_made_again(chain: Chain, attack: Callable[[Path], object]) -> None:
    folder = chain.run().folder("gate")
    chain.run()
    assert chain.runs == [], "the control: an unchanged result is reused"
    attack(folder)
    result = chain.run(word="b")
    assert chain.runs == ["gate", "model"]
    assert (result.folder("model") / "model.bin").read_bytes() == CONTENT
    assert sorted(path.name for path in folder.rglob("*")) == ["config.json", "deep", "gate.bin"]


def test_it_is_said_which_file_was_changed(chain: Chain) -> None:
    flip(chain.run().folder("gate") / "gate.bin")
    chain.run()
    assert "gate: 'gate.bin' changed after the stage wrote them, so it runs again" in chain.printed.getvalue()


@pytest.mark.parametrize("accepted", [[1], [None], ["x"], [{}], [{"key": 1}], [[]]])
def test_an_odd_list_of_accepted_keys_accepts_nothing(chain: Chain, accepted: list[object]) -> None:
    change_marker(lambda marker: marker.update(accepted=accepted))(chain.run().folder("gate"))
    assert Store(chain.store).accepted("gate", "0" * 64, code_free_key=None) is None


def test_a_file_is_hashed_once_in_a_run_and_again_when_its_ctime_changed(chain: Chain) -> None:
    folder = chain.run().folder("gate")
    old = time.time_ns() - CLOCK_STEP_NS
    while (folder / "gate.bin").stat().st_ctime_ns > old - 10_000_000:
        time.sleep(0.1)
        old = time.time_ns() - CLOCK_STEP_NS
    store = Store(chain.store)
    before = store._files(folder)
    known = dict(store._digests)
    assert len(known) == 2 and store._files(folder) == before and store._digests == known
    flip_and_set_back_the_clock(folder)
    assert store._files(folder) != before
