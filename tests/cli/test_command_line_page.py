"""The page of the command line is what the program says of itself."""

import runpy
from pathlib import Path

from prosocial.cli.main import COMMANDS


def test_the_page_of_the_command_line_is_current(root: Path) -> None:
    script = runpy.run_path(str(root / ".ci" / "write_command_line.py"))
    page = (root / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")

    assert page == script["page"](), "run: python .ci/write_command_line.py"
    assert all(f"\n## prosocial {name}\n" in page for name, *_ in COMMANDS)
