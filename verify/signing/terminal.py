"""Printing a chain in the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .chain import ChainReport, LinkState

STYLES = {
    LinkState.VALID: "green",
    LinkState.NOT_CHECKED: "dim",
    LinkState.MISSING: "bold yellow",
    LinkState.DOUBTFUL: "bold yellow",
    LinkState.BROKEN: "bold red",
}
VERDICT_STYLES = {"pass": "bold green", "cannot say": "bold yellow", "fail": "bold red"}


def print_chain(report: ChainReport, console: Console) -> None:
    """Print the verdict and a table of the links."""
    verdict = (report.verdict.upper(), VERDICT_STYLES[report.verdict])
    console.print(Text.assemble("verdict: ", verdict, f"  {report.folder} {report.root[:16]}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("link", "state", "signed by", "details"):
        table.add_column(name, overflow="fold")
    for link in report.links:
        table.add_row(
            link.name, Text(link.state, style=STYLES[link.state]), Text(link.signed_by or ""), Text(link.told)
        )
    console.print(table)
