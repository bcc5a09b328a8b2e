"""Every command of the README and the pages is one, every link leads somewhere, every page is in the navigation."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from prosocial.cli.main import app

from .pages import LANGUAGES, PAGES, ROOT, Command, blocks, name_of

pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


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
