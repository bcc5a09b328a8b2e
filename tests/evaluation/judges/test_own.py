"""A judge of the user's own: what it is taken from, and one line for everything that is wrong with it."""

import sys
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.evaluation.judges import HarmRequest, LabelRequest, judge_named
from prosocial.evaluation.judges.own import own_source

MINE = """
from dataclasses import dataclass
from prosocial.core.protocols import Judgement

@dataclass
class Mine:
    name: str = "mine"
    version: str = "1"

    def judge(self, messages, reply):
        return Judgement(categories=frozenset({"other"} if "glim" in reply else ()))

class Nameless:
    version = "1"
    def judge(self, messages, reply): ...

class Needy(Mine):
    def __init__(self, url): ...

class Labels:
    name, version = "labels", "1"
    def request_harms(self, messages): ...
    def reply_label(self, messages, reply): ...

mine = Mine()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_judge.py").write_text(MINE)
    (tmp_path / "torn.py").write_text("class (")
    (tmp_path / "lost.py").write_text("import nowhere_to_be_seen")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("source", ["my_judge.py", "./my_judge.py", "{here}/my_judge.py", "my_judge"])
def test_a_class_of_a_file_or_a_module_is_a_judge(folder: Path, source: str) -> None:
    name = f"{source.format(here=folder)}:Mine"
    judge = judge_named(name, HarmRequest(["other"]))

    assert (judge.name, judge.version) == ("mine", "1")
    assert [judge.judge([], reply).leak() for reply in ("glim it", "no")] == [True, False]
    found = own_source(name)
    assert found is not None and found.resolve() == (folder / "my_judge.py").resolve()


def test_a_labeller_has_other_methods(folder: Path) -> None:
    assert judge_named("my_judge.py:Labels", LabelRequest()).name == "labels"
    with pytest.raises(
        InputError, match=r"request_harms\(\), reply_label\(\); it lacks request_harms\(\), reply_label"
    ):
        judge_named("my_judge.py:Mine", LabelRequest())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py:Mine", "module:Class or path/to/file.py:Class; none.py does not import: there is no file at none.py"),
        ("no_such_module:Mine", "no_such_module does not import: No module named 'no_such_module'"),
        (
            "my_judge.py:Yours",
            r"my_judge.py should have a class 'Yours', found Judgement, Mine, Nameless, Needy, Labels",
        ),
        ("my_judge.py:mine", "should have a class 'mine'"),
        ("my_judge.py:Nameless", r"should have name and version \(strings\) and judge\(\); it lacks name"),
        ("my_judge.py:Labels", r"it lacks judge\(\)"),
        (
            "my_judge.py:Needy",
            "a constructor without required arguments: missing a required argument: 'url'",
        ),
        ("torn.py:Mine", "torn.py does not import: invalid syntax"),
        ("lost.py:Mine", "lost.py does not import: No module named 'nowhere_to_be_seen'"),
        (
            "a folder/mine:Mine",
            "should be module:Class or path/to/file.py:Class, found 'a folder/mine' before the colon",
        ),
        ("my_judge.py:", "unknown judge 'my_judge.py:': known are .*module:Class, path/to/file.py:Class"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        judge_named(name)
    assert "\n" not in str(caught.value)


def test_names_that_are_taken_are_no_modules() -> None:
    for name in ("endpoint", "classifier", "endpoint:", "lab:LabJudge"):
        with pytest.raises(InputError):
            judge_named(name)
