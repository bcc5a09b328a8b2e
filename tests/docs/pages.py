"""The pages of the documentation as blocks of code, each known by its language."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"csharp", "javascript", "python", "console", "sh", "json", "yaml", "text", "mermaid"}
FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
EXIT_CODE = re.compile(r"# exit code (\d)")


@dataclass(frozen=True)
class Block:
    """One block of code: its language, its text, and the line of the page that it starts on."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> Iterator[str]:
        """Yield the shell commands: all lines of `sh`, those after `$` of `console`; the others are output."""
        for line, _ in self.steps:
            yield from line.split(" && ")

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """Return the lines that are typed, each with what is shown below it: nothing in `sh`."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if self.language == "sh":
                found.append((line, []))
            elif self.language == "console" and line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif self.language == "console" and found:
                found[-1][1].append(line)
        return found


@dataclass(frozen=True)
class Command:
    """A command of this package as a page shows it.

    Attributes:
        words: after `prosocial`. out: the file that its output goes to. exit_code: that the page tells, else 0.
    """

    words: tuple[str, ...]
    out: str | None
    exit_code: int

    @classmethod
    def read(cls, line: str) -> "Command | None":
        """Read a line; None where it is no command of this package."""
        told = EXIT_CODE.search(line)
        program, *words = shlex.split(line, comments=True) or [""]
        if program not in ("prosocial", ".venv/bin/prosocial"):
            return None
        at = words.index(">") if ">" in words else len(words)
        return cls(tuple(words[:at]), words[at + 1] if at < len(words) else None, int(told[1]) if told else 0)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["text"], text[: found.start()].count("\n") + 1) for found in FENCE.finditer(text)
    ]


def name_of(page: Path) -> str:
    """Return the name of a page in test ids."""
    return page.relative_to(ROOT).as_posix()
