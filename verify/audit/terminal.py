"""Printing an audit in the terminal."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from .audit_document import AuditReport, TensorAudit
from .forensics import formula
from .verdicts import AuditVerdict

STYLES = {
    AuditVerdict.CONFIRMED: "bold green",
    AuditVerdict.WITHIN_ROUNDING: "green",
    AuditVerdict.CANNOT_SAY: "bold yellow",
    AuditVerdict.REFUTED: "bold red",
}
MAX_REASONS = 5


def print_audit(report: AuditReport, console: Console, *, top: int = 10) -> None:
    """Print the verdict, each level with its reasons, the recovered coefficients and the side files that differ.

    Args:
        report: result of an audit.
        console: console to print to.
        top: most tensors to list, those with the most misfits first.
    """
    against = f" against {report.base}" if report.base else ""
    console.print(Text.assemble("verdict: ", _styled(report.verdict), f"  {report.model}{against}"))
    for level in report.levels:
        console.print(Text.assemble(f"\nlevel {level.level}  ", _styled(level.verdict), f"  {level.title}"))
        for reason in level.reasons[:MAX_REASONS]:
            console.print(Text(f"  {reason}"), soft_wrap=True)
        if len(level.reasons) > MAX_REASONS:
            console.print(Text(f"  and {len(level.reasons) - MAX_REASONS} more", style="dim"))
    if not report.levels:
        console.print("  nothing to check: the model has no edit record; give --base and --vector")
    if report.weights:
        console.print(
            Text.assemble("\ncoefficient common to all explained tensors: ", (formula(report.weights), "bold"))
        )
    if any(tensor.weights or tensor.n_misfits for tensor in report.tensors):
        console.print(_tensors(report.tensors, top))
    for side in report.side_files or ():
        text = f"\n{side.part} differs from the base's: {side.file}: {side.difference}"
        console.print(Text(text, style=STYLES[AuditVerdict.CANNOT_SAY]))
    if report.unverified:
        console.print(
            Text(f"\nnot verified, only stated by the record: {'; '.join(report.unverified)}"), soft_wrap=True
        )


def _tensors(tensors: tuple[TensorAudit, ...], top: int) -> Table:
    shown = sorted((each for each in tensors if each.weights or each.n_misfits), key=lambda each: -each.n_misfits)
    table = Table(Column("tensor", overflow="fold"), "dtype", "nearest", "arithmetic", "misfits", box=None)
    table.title, table.title_justify = f"{min(top, len(shown))} of {len(shown)} edited tensors", "left"
    for tensor in shown[:top]:
        weights = formula(tensor.weights) if tensor.weights else "none"
        style = STYLES[AuditVerdict.REFUTED] if tensor.verdict is AuditVerdict.REFUTED else ""
        cells = (tensor.name, tensor.dtype, weights, tensor.arithmetic or "as recorded", f"{tensor.n_misfits:,}")
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def _styled(verdict: AuditVerdict) -> tuple[str, str]:
    return verdict.upper(), STYLES[verdict]
