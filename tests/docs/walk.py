"""Walks through a page as a reader would: runs its commands and its Python in order, and compares what they print.

A block `console` runs as it is; a block `sh` has names that the reader brings, and is only parsed (test_pages.py).
A page shows output below the line that is typed. It should be the whole output, with two marks for what differs:

- `…` stands for any text: alone on a line for lines left out, inside a line for the rest of a digest or a name;
- `≈` says that the machine decides: before a number for that number, at the start of a line for the words of a reply.

White space, frames of tables, progress bars and the digits of digests do not count. Where no output is shown, none is
compared.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from prosocial.cli.main import main

from .pages import Block, Command, blocks, name_of

NUMBER = r"[-+\u2212]?\d[\d,\u202f]*(?:\.\d+)?(?:e[-+]?\d+)?"
DIGEST = r"\b[0-9a-f]{16,}\b"
PART = re.compile(rf"(?P<any>\u2248 ?{NUMBER})|(?P<rest>\u2026)|(?P<digest>{DIGEST})|(?P<number>{NUMBER})")
FRAME = re.compile(r"[\u2500-\u257f\u2580-\u259f]")
PROGRESS = re.compile(r"[^\r\n]*\r[^\n]*it/s\]")
FILE = re.compile(r"`(?P<name>[\w.-]+\.(?:json|jsonl|mjs|py|yaml))`:\s*\Z")
PLACEHOLDER = re.compile(r"[A-Z][A-Z/_]+")

# What is not run, and why.
NOT_RUN = {
    "make": "it would start the quickstart or the tests",
    "pip": "it installs packages",
    "npm": "it installs packages",
    "node": "tests/docs/test_javascript.py runs it where its packages are",
    "dotnet": "it installs packages",
    "inspect": "tests/evaluation/inspect_ai has an environment of its own",
    "accelerate": "it starts processes of its own; tests/training runs them",
    "python": "the benchmarks take minutes",
    "prosocial run": "`make prove` runs the quickstart first",
    "prosocial chat": "it waits for a person",
}
# Fewer steps where only the form of the output is checked.
FEWER_STEPS = {
    "prosocial gate train": ("--set", "steps=2"),
    "prosocial distil": ("--set", "steps=2"),
    "prosocial reward train": ("--set", "steps=2"),
    "prosocial sweep": ("--trials", "1"),
}


@dataclass
class Walk:
    """A page that is read in the current folder.

    Attributes:
        exact: whether numbers without `≈` should be equal; otherwise any number may stand there.
        differences: what was printed otherwise than shown, one text per command.
    """

    page: Path
    exact: bool
    differences: list[str] = field(default_factory=list)
    python: dict[str, Any] = field(default_factory=dict)
    n_run: int = 0

    def read(self) -> "Walk":
        """Write the files that the page shows, run its code, and compare the output."""
        text = self.page.read_text(encoding="utf-8").splitlines()
        with chdir("."):
            for block in blocks(self.page):
                if name := FILE.search("\n".join(text[: block.line - 1]).rstrip()):
                    Path(name["name"]).write_text(block.text, encoding="utf-8")
                self._run(block)
        return self

    def _run(self, block: Block) -> None:
        if block.language == "python":
            exec(compile(block.text, f"{name_of(self.page)}:{block.line}", "exec"), self.python)
        for line, shown in block.steps if block.language == "console" else ():
            said = "".join(map(self._say, line.split(" && ")))
            if said and (message := difference(shown, said, exact=self.exact)):
                self.differences.append(f"{name_of(self.page)}:{block.line}: {line}\n{message}")

    def _say(self, line: str) -> str:
        """Run one command and return what it printed; nothing where it is not run."""
        if line.startswith("cd "):
            os.chdir(shlex.split(line)[1])
        if line.startswith("cd ") or not_run(line):
            return ""
        self.n_run += 1
        command = Command.read(line)
        if command is not None:
            return self._prosocial(line, command)
        done = subprocess.run(shlex.split(line, comments=True), check=True, capture_output=True, text=True)
        return done.stdout

    def _prosocial(self, line: str, command: Command) -> str:
        words = [*command.words, *(() if self.exact else fewer_steps(command))]
        printed = StringIO()
        complained = StringIO() if command.out else printed
        with redirect_stdout(printed), redirect_stderr(complained):
            code = main(words)
        if command.out:
            Path(command.out).write_text(printed.getvalue(), encoding="utf-8")
        assert code == command.exit_code, f"{line}: exit code {code}\n{printed.getvalue()}{complained.getvalue()}"
        return complained.getvalue()


def not_run(line: str) -> str | None:
    """Return why a command is not run; None if it is."""
    words = shlex.split(line, comments=True)
    if not words:
        return "a comment"
    words[0] = Path(words[0]).name
    for name, reason in NOT_RUN.items():
        if words[: len(name.split())] == name.split() and "--dry-run" not in words:
            return reason
    if words[0] == "prosocial" and any(PLACEHOLDER.search(word) for word in words[1:] if word.upper() == word):
        return "its names are placeholders"
    outside = ("http", "endpoint:", "classifier:")
    return "it needs a network" if any(word.startswith(outside) for word in words) else None


def fewer_steps(command: Command) -> tuple[str, ...]:
    """Return the options that make a command short."""
    line = " ".join(("prosocial", *command.words))
    return next((options for name, options in FEWER_STEPS.items() if line.startswith(f"{name} ")), ())


def difference(shown: list[str], printed: str, *, exact: bool) -> str:
    """Return the first line of a page that was not printed, and what was printed; an empty text if all is as shown."""
    lines = [line for line in map(plain, shown) if line]
    text = plain(printed)
    if not lines or re.fullmatch(pattern(lines, exact=exact), text):
        return ""
    first = next((n for n in range(len(lines)) if not re.match(pattern(lines[: n + 1], exact=exact), text)), None)
    shown_line = "nothing more" if first is None else lines[first]
    return f"  shown:   {shown_line}\n  printed: {printed.strip()}"


def plain(text: str) -> str:
    """Return text without frames and progress bars, with single spaces."""
    return " ".join(FRAME.sub(" ", PROGRESS.sub("", text)).split())


def pattern(lines: list[str], *, exact: bool) -> str:
    """Return the regular expression of the lines of a page."""
    return r"\s*".join("".join(_parts(line, exact=exact)) for line in lines)


def _parts(line: str, *, exact: bool) -> Iterator[str]:
    if line in ("\u2026", "(shortened)") or (line.startswith("\u2248") and not re.match(rf"\u2248 ?{NUMBER}", line)):
        yield ".*?"
        return
    end = 0
    for part in PART.finditer(line):
        yield re.escape(line[end : part.start()])
        end = part.end()
        free = part["any"] or (part["number"] and not exact)
        yield NUMBER if free else DIGEST if part["digest"] else ".*?" if part["rest"] else re.escape(part[0])
    yield re.escape(line[end:])
