"""What the README and the pages show holds: the code runs, every command is one, every link leads somewhere."""

import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from prosocial.cli.main import app, main

from ..hub.hub_fixture import LoopbackHub
from .pages import LANGUAGES, PAGES, ROOT, Command, blocks, name_of

pages = pytest.mark.parametrize("page", PAGES, ids=name_of)
# Their code runs in folders of their own, in the tests named here.
ELSEWHERE = {
    "docs/hub.md": "tests/docs/test_pages.py",  # with a Hub
    "docs/guides/publish.md": "tests/docs/test_pages.py",  # with a Hub
    "docs/reward.md": "tests/docs/test_reward_page.py",
    "docs/safety-configs.md": "tests/cli/test_config.py",
    "docs/steering.md": "tests/docs/test_steering_page.py",
}
STORIES = [
    page for page in PAGES if name_of(page) not in ELSEWHERE and any(b.language == "python" for b in blocks(page))
]
STORIES += [page for page in PAGES if "guides" in page.parts and page not in STORIES and name_of(page) not in ELSEWHERE]
LONG = ("run", "chat")  # the quickstart itself is `make prove`'s
PLACEHOLDER = re.compile(r"[A-Z][A-Z/]+")


@pages
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(page)

    assert {block.language for block in found} <= LANGUAGES
    assert text.count("```") == 2 * len(found), "a fence should start its line, and close"


@pages
def test_every_command_is_one(page: Path) -> None:
    for block in blocks(page):
        for line in block.commands:
            command = Command.read(line)
            if command is not None:
                parse(command)


def parse(command: Command) -> None:
    """Parse a command as the program would, without running it: an unknown option or command raises."""
    found, words = typer.main.get_command(app), list(command.words)
    if words and words[0].startswith("-"):
        return
    while isinstance(found, typer.core.TyperGroup):
        name = words.pop(0)
        assert name in found.commands, f"no such command: {name}"
        found = found.commands[name]
    found.make_context(found.name, words)


def test_an_unknown_option_would_be_found() -> None:
    """The control of the test above."""
    read = Command.read('prosocial audit edited --base base --no-such-option "a b" > out.json  # exit code 1')

    assert read is not None and (read.out, read.exit_code) == ("out.json", 1)
    with pytest.raises(typer.TyperException, match="no-such-option"):
        parse(read)


@pytest.mark.parametrize("page", STORIES, ids=name_of)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's
def test_the_story_runs(page: Path, place: Path) -> None:
    tell(page)


def test_the_page_about_the_hub_runs_against_one(place: Path, hub: LoopbackHub) -> None:
    tell(ROOT / "docs" / "hub.md")


def test_the_guide_on_publishing_ends_in_a_publication_that_others_can_check(place: Path, hub: LoopbackHub) -> None:
    from prosocial.core import TrustedKey
    from prosocial.export.hub import download

    tell(ROOT / "docs" / "guides" / "publish.md")

    assert "model.sig" in hub.files("org/name") and len(hub.repositories["org/name"].commits) == 2
    assert "license: apache-2.0" in hub.files("org/name")["README.md"].decode()
    assert (download("org/name", keys=[TrustedKey.read(Path("key.pub"))], is_bundle=True) / "model.onnx").is_file()


def tell(page: Path, check: Callable[[str, list[str], str], None] | None = None) -> dict[str, Any]:
    """Run the code of a page from top to bottom and return what its Python holds.

    Args:
        check: is given each line that is typed, what the page shows below it, and what was said.
    """
    space: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{name_of(page)}:{block.line}", "exec"), space)
        elif block.language == "console":
            for line, shown in block.steps:
                said = "".join(run(part) for part in line.split(" && "))
                if check is not None:
                    check(line, shown, said)
    return space


def run(line: str) -> str:
    """Run a command of this package, of openssl or cp; what installs, makes or takes long is left out.

    Returns what was said, on both streams.
    """
    if line.startswith(("openssl ", "cp ")):
        subprocess.run(shlex.split(line), check=True, capture_output=True)
    command = Command.read(line)
    if command is None or command.words[0] in LONG or any(map(PLACEHOLDER.fullmatch, command.words)):
        return ""
    with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as complained:
        code = main(command.words)
    assert code == command.exit_code, f"{line}\n{complained.getvalue()}"
    if command.out is not None:
        Path(command.out).write_text(said.getvalue(), encoding="utf-8")
    return said.getvalue() + complained.getvalue()


def test_pages_elsewhere_are_run_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]

    assert [link for link in targets if link and "://" not in link and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    assert set(leaves(site["nav"])) == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}


def leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for entry in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(entry)]


@pytest.mark.parametrize("name", ["core", "editing", "steering", "training", "export", "evaluation", "verify"])
def test_the_reference_holds_every_public_name(name: str) -> None:
    page = (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (\S+)$", page, re.MULTILINE)

    public = import_module(f"prosocial.{name}").__all__
    assert sorted(shown) == sorted(f"prosocial.{name}.{each}" for each in public)
