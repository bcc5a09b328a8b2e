"""The command `publish`: uploads an artefact to the Hub."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .output import result_console, say, say_json

if TYPE_CHECKING:
    from prosocial.export import HubClient, PublicationPlan
    from prosocial.export.hub.client import RemoteState

MEBIBYTE = 2**20


def publish_command(
    folder: Annotated[Path, typer.Argument(help="An edited checkpoint, an adapter, a reward model or a bundle.")],
    name: Annotated[str, typer.Argument(help="ORG/NAME on the Hub.")],
    license: Annotated[
        str | None, typer.Option(help="Licence identifier, such as apache-2.0. [default: the card's]")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="ORG/NAME@COMMIT of the base checkpoint, if it is on the Hub.")
    ] = None,
    parity: Annotated[Path | None, typer.Option(help="For a bundle: the JSON of `prosocial verify --json`.")] = None,
    audit: Annotated[
        Path | None, typer.Option(help="For an edited checkpoint: the JSON of `prosocial audit --json`.")
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option(help="report.json of `prosocial compare` or of a run, which compares base and edited model."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public after the upload is complete.")
    ] = False,
    tag: Annotated[str | None, typer.Option(help="Name of the tag. [default: derived from the content]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the model card, upload nothing.")
    ] = False,
    card_only: Annotated[
        bool,
        typer.Option("--write-card", help="Only write the model card to README.md in FOLDER, so that you can sign it."),
    ] = False,
    publish_harmful: Annotated[
        bool,
        typer.Option(
            "--publish-harmful-weights-private-and-gated",
            help="Required for a harm vector or harmful weights, which are published privately and gated.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Publish an artefact to the Hub as one commit, private by default; it is checked before and after the upload.

    If the connection drops, no partial upload is visible; run the same command again to resume.
    """
    from prosocial.core.files import alone, delete_asides
    from prosocial.export import HubClient, plan_publication
    from prosocial.export.hub.card import CARD_FILE

    hub = HubClient.connect(name)
    with alone(folder.resolve()) if card_only and folder.is_dir() else contextlib.nullcontext():
        if card_only:
            delete_asides(folder, CARD_FILE)  # the manifest does not list what a killed process left
        plan = plan_publication(
            folder,
            name,
            license=license,
            base=base,
            report=_report(folder, parity, audit),
            comparison=_comparison(comparison),
            is_public=public,
            allow_harmful=publish_harmful,
            fresh_card=card_only,
            tag=tag,
        )
        if card_only:
            _write_card(folder, plan, as_json)
    if not card_only:
        _publish(plan, hub, dry_run, as_json)


def _write_card(folder: Path, plan: "PublicationPlan", as_json: bool) -> None:
    from prosocial.core.signing.model_signature import SIGNATURE_FILE
    from prosocial.export.hub.card import CARD_FILE, write_card

    write_card(folder, plan.card)
    again = " --again" if (folder / SIGNATURE_FILE).is_file() else ""
    if as_json:
        say_json({"card": plan.card})
    else:
        say(f"wrote {folder / CARD_FILE}: now sign the folder with prosocial sign{again}, then publish it")


def _publish(plan: "PublicationPlan", hub: "HubClient", dry_run: bool, as_json: bool) -> None:
    """Print the plan compared with the state of the Hub, then publish."""
    from prosocial.export import publish

    if not dry_run:
        hub.require_token()
    remote = hub.look() if hub.has_token else None
    if not as_json:
        _print_plan(plan, remote, result_console(), with_card=dry_run)
    published = None if dry_run else publish(plan, hub, seen=remote)
    if as_json:
        done = {} if published is None else {"published": published.to_json()}
        say_json({"plan": plan.to_json(remote)} | done)
    elif published is not None:
        say(f"{'published' if published.is_new else 'already there'}, {published.visibility}: {published.url}")


def _report(folder: Path, parity: Path | None, audit: Path | None) -> Path | None:
    """Return the report that belongs to the folder's kind of artefact.

    Raises:
        InputError: a report of another kind is given.
    """
    from prosocial.core import InputError
    from prosocial.export.hub.kinds import identify
    from prosocial.export.hub.verification import REPORTS

    kind, given = identify(folder), {"parity": parity, "audit": audit}
    needed = REPORTS[kind][0] if kind in REPORTS else ""
    for option, path in given.items():
        if path is not None and option != needed:
            raise InputError(f"{folder} is of kind {kind}, to which --{option} does not apply: leave it out")
    return given.get(needed)


def _comparison(path: Path | None) -> dict[str, Any] | None:
    from prosocial.core.files import read_json
    from prosocial.evaluation.report.report_document import SCHEMA

    return None if path is None else read_json(path, schema=SCHEMA)


def _print_plan(plan: "PublicationPlan", seen: "RemoteState | None", console: Console, *, with_card: bool) -> None:
    table = Table("file", "MiB", "SHA-256", "on the Hub", title=f"{plan.kind} to {plan.name}, {plan.visibility}")
    differing = {file.path for file in plan.differing(seen)}
    for file in plan.files:
        state = "same" if file.path not in differing else "other" if seen and file.path in seen.files else "new"
        table.add_row(file.path, f"{file.size_bytes / MEBIBYTE:.2f}", file.sha256[:12], state)
    for path in plan.stale(seen):
        table.add_row(path, "", "", "to be deleted")
    console.print(table)
    for claim in plan.claims:
        console.print(f"claims: {claim}", markup=False, soft_wrap=True)
    if plan.left_out:
        console.print(f"left out: {', '.join(plan.left_out)}", markup=False, soft_wrap=True)
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    parent = seen.commit[:12] if seen else "no repository yet"
    console.print(f"tag {plan.tag}, one commit on {parent}", markup=False, soft_wrap=True)
    if with_card:
        console.print(plan.card, markup=False, highlight=False, soft_wrap=True)
