"""Whatever goes wrong with what the user gave is one line and exit code 2; a mistake in prosocial is exit code 70."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from prosocial.cli.extras import EXTRA_OF
from prosocial.cli.main import COMMANDS, app, error_line, main
from prosocial.core.errors import (
    ArtefactError,
    InputError,
    MissingExtraError,
    ProsocialError,
    StorageError,
    UnknownNameError,
)

Capture = pytest.CaptureFixture[str]
CHECK = "check the path and its permissions"


@pytest.fixture
def command() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Adds a command named `trial` to the real application, for one test."""
    before = list(app.registered_commands)

    def add(function: Callable[[], object]) -> None:
        def trial(as_json: bool = typer.Option(False, "--json")) -> object:
            return function()

        app.command("trial")(trial)

    yield add
    app.registered_commands[:] = before


def raise_error(error: BaseException) -> Callable[[], object]:
    def function() -> object:
        raise error

    return function


def test_help_names_every_command_by_its_group(capsys: Capture) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    for name, _, panel, _ in COMMANDS:
        assert f" {name} " in text
        assert panel in text


def test_no_words_give_help(capsys: Capture) -> None:
    assert main([]) == 0
    assert "quickstart" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"prosocial {version('prosocial')}\n"


@pytest.mark.parametrize(("name", "example"), [(name, example) for name, _, _, example in COMMANDS])
def test_every_command_has_help_with_an_example_that_parses(name: str, example: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert "Example: prosocial" in capsys.readouterr().out

    program, first, *words = shlex.split(example)
    assert (program, first) == ("prosocial", name)
    typer.main.get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name, _, _, _ in COMMANDS if name != "chat"])
def test_every_command_speaks_json(name: str, capsys: Capture) -> None:
    main([name, "--help"])

    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "Missing argument"),
        (["inspekt", "x"], "No such command"),
        (["inspect", "x", "--no-such-option"], "No such option"),
        (["edit", "x"], "Missing option"),
        (["inspect", "/no/such/folder"], "/no/such/folder"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], said: str, as_json: bool, capsys: Capture) -> None:
    assert main([*words, *(["--json"] if as_json else [])]) == 2

    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    if as_json:
        assert said in json.loads(printed.out)["error"]
    else:
        assert printed.out == ""


MEMORY_FULL = "the memory is full: give the command less at once, more memory, or another --device or --dtype"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a should\nbe b"), "a should be b"),
        (ArtefactError("x is no bundle"), "x is no bundle"),
        (UnknownNameError("recipe", "x", ["b", "a"]), "unknown recipe 'x': known are a, b"),
        (
            UnknownNameError("recipe", "pica", ["pico"]),
            "unknown recipe 'pica' (did you mean pico?): known are pico",
        ),
        (StorageError("could not write x"), "could not write x"),
        (
            MissingExtraError("torch", "edit"),
            "torch is needed here and is not installed: pip install 'prosocial[edit]'",
        ),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            "torch is needed here and is not installed: pip install 'prosocial[edit]'",
        ),
        (ModuleNotFoundError("No module named 'prosocial.nothing'", name="prosocial.nothing"), None),
        (ModuleNotFoundError("nameless"), None),
        (ProsocialError("no"), "no"),
        (OSError(errno.ENOSPC, "full", "/a/b"), "the disk is full at /a/b: free space or choose another folder"),
        (OSError(errno.EDQUOT, "quota"), "the disk is full: free space or choose another folder"),
        (
            OSError(errno.ENOENT, "No such file", "/a/b"),
            "/a/b cannot be used: no such file; check the path and its permissions",
        ),
        (
            OSError(errno.EISDIR, "Is a directory", b"/a/b"),
            "/a/b cannot be used: is a directory; check the path and its permissions",
        ),
        (OSError("no route"), "the operating system refused: no route"),
        (MemoryError(), MEMORY_FULL),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY_FULL),
        (RecursionError("deep"), "an input is nested too deeply to be read: save it with fewer levels"),
        (
            UnicodeDecodeError("u", b"\xff", 0, 1, "no"),
            "an input should be UTF-8 text: 'u' codec can't decode byte 0xff in position 0: no",
        ),
        (InputError("a \x1b[2J b"), "a \\x1b[2J b"),
        (ValueError("a mistake"), None),
        (typer.BadParameter("must be 1"), "Invalid value: must be 1"),
    ],
)
def test_which_errors_are_foreseen(error: BaseException, line: str | None) -> None:
    assert error_line(error) == line


def test_every_requirement_of_the_extras_is_known(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    brought = {
        re.split(r"[<>=\[]", requirement)[0].replace("-", "_").replace("scikit_learn", "sklearn"): extra
        for extra in ("train", "edit", "cpu", "cagrad", "gguf", "ray", "inspect")
        for requirement in extras[extra]
    }

    assert brought == EXTRA_OF


SECRET = "sk-a-key and the text of a prompt"


def _fail() -> None:
    raise KeyError(SECRET)


def test_a_mistake_in_prosocial_is_one_line_with_a_file_to_report(
    command: Callable[..., None], capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(_fail)

    assert main(["trial", "--json"]) == 70
    printed = capsys.readouterr()
    (report,) = tmp_path.iterdir()
    text = report.read_text(encoding="utf-8")
    assert printed.err.count("\n") == 1 and str(report) in printed.err
    assert json.loads(printed.out)["error"] in printed.err
    assert "KeyError" in text and "_fail" in text and version("prosocial") in text
    assert SECRET not in text + printed.err  # messages may quote a prompt or a key
    assert report.stat().st_mode & 0o077 == 0


def test_the_whole_error_is_shown_on_demand(command: Callable[..., None], capsys: Capture) -> None:
    command(_fail)

    assert main(["trial", "--verbose"]) == 2  # this command has no such option
    assert main(["inspect", "/no/such/folder", "--verbose"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_command_decides_its_exit_code(code: int, command: Callable[..., None]) -> None:
    command(raise_error(typer.Exit(code)))

    assert main(["trial"]) == code


def test_a_full_disk_is_one_line(command: Callable[..., None], capsys: Capture) -> None:
    command(lambda: Path("/dev/full").write_text("x"))

    assert main(["trial"]) == 2
    assert capsys.readouterr().err.startswith("error: the disk is full")


def test_ctrl_c_is_one_line_and_exit_code_130(command: Callable[..., None], capsys: Capture) -> None:
    command(lambda: os.kill(os.getpid(), signal.SIGINT))

    assert main(["trial"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture(params=["buffered", "unbuffered"])
def run(request: pytest.FixtureRequest) -> Callable[[list[str], object], subprocess.CompletedProcess[str]]:
    """Runs the command as a process with a given stdout, both ways in which Python may write to it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if request.param == "buffered" else "1"}

    def run(words: list[str], stdout: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prosocial.cli.main", *words]
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False
        )

    return run


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["inspect", "/no/such/folder", "--json"]])
def test_output_onto_a_full_disk_is_one_line(
    words: list[str], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(words, full)

    assert done.returncode == 2
    assert done.stderr.startswith("error: " if words[0] == "inspect" else "error: the disk is full")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_a_reader_that_leaves_early_is_no_verdict(
    words: list[str], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(words, writing)
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, "")
