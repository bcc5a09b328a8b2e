"""The command that holds a bundle against its reference: verify."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

EXIT_CODES = {"pass": 0, "fail": 1, "ambiguous": 3}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    reference: Annotated[Path, typer.Option(help="The steered folder that it was exported from.")],
    probes: Annotated[
        Path | None, typer.Option(help="Requests to compare on (JSONL). [default: twelve short ones]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens per reply.")] = 32,
    max_kl_p99: Annotated[float | None, typer.Option(help="Highest KL, 99th percentile, that passes.")] = None,
    max_logit_difference: Annotated[float | None, typer.Option(help="Largest logit difference that passes.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with its reference, decision by decision. Exit code: 0 pass, 1 fail, 3 ambiguous."""
    from prosocial.verify.bundle_parity import bundle_gates, verify_bundle
    from prosocial.verify.probes import read_probes
    from prosocial.verify.report.terminal import print_parity

    given = {"kl_p99": max_kl_p99, "max_logit_difference": max_logit_difference}
    thresholds = {name: value for name, value in given.items() if value is not None}
    report = verify_bundle(
        bundle,
        reference=reference,
        probes=read_probes(probes) if probes else (),
        gates=bundle_gates(bundle).with_thresholds("command line", **thresholds),
        max_new_tokens=max_new_tokens,
    )
    document = report.to_json()
    if as_json:
        _print_json(document)
    else:
        print_parity(document, Console())
    raise typer.Exit(EXIT_CODES[document["verdict"]])


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))
