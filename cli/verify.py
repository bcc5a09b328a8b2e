"""The command `verify`: compares a bundle with its reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from prosocial.core import InputError

from .draw_options import Limit, drawn_line, spread
from .output import note, result_console, say, say_json
from .placement_options import HARDWARE
from .shared_options import with_options

EXIT_CODES = {"pass": 0, "fail": 1, "ambiguous": 3}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@with_options("hardware", HARDWARE)
def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    reference: Annotated[
        Path | None, typer.Option(help="The steered folder that the bundle was exported from.")
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Requests for the comparison (JSONL). [default: twelve short ones]")
    ] = None,
    limit: Limit = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens of a reply.")] = 32,
    max_kl_p99: Annotated[float | None, typer.Option(help="Threshold of the 99th percentile of KL.")] = None,
    max_logit_difference: Annotated[
        float | None, typer.Option(help="Threshold of the largest logit difference.")
    ] = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="Threshold of another gate, as NAME=NUMBER; may repeat.")
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option(help="Judge the measurements.npz of an earlier run instead of measuring.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for parity.json, parity.html and measurements.npz.")
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A public key (PEM): one of these must have signed the bundle; may repeat."),
    ] = None,
    *,
    hardware: dict[str, Any],
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit XML file for CI, with one test per gate.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with its reference, decision by decision. Exit code: 0 pass, 1 fail, 3 ambiguous."""
    from prosocial.core.files import require_place
    from prosocial.evaluation import Hardware, read_probes
    from prosocial.evaluation.report.junit import parity_cases, write_junit
    from prosocial.evaluation.report.terminal import print_parity
    from prosocial.verify.bundle_parity import bundle_gates, measure_bundle, read_measurement_of
    from prosocial.verify.parity.files import write_parity

    require_place(out, is_folder=True)
    require_place(junit, is_folder=False)
    if key:
        from prosocial.core import TrustedKey
        from prosocial.export.bundle_files.signature import signature_of
        from prosocial.export.bundle_files.verified import VerifiedFiles

        signature = signature_of(VerifiedFiles.open(bundle), [TrustedKey.read(path) for path in key])
        note(f"signature: {signature}")
    thresholds = _thresholds(gate or (), kl_p99=max_kl_p99, max_logit_difference=max_logit_difference)
    gates = bundle_gates(bundle).with_thresholds("command line", **thresholds)
    if measurements is not None and reference is None:
        measurement = read_measurement_of(bundle, measurements)
    elif reference is not None and measurements is None:
        given = spread(read_probes(probes), limit) if probes else ()
        chosen = Hardware.choose([bundle, reference], **hardware)
        measurement = measure_bundle(
            bundle,
            reference=reference,
            probes=given,
            max_new_tokens=max_new_tokens,
            placement=chosen.placement,
            provider=chosen.provider,
        )
    else:
        raise InputError(
            "verify needs either --reference, to measure, or --measurements, to judge an earlier run: give one of them"
        )
    document = measurement.judge(gates).to_json()
    if junit is not None:
        write_junit(junit, "prosocial verify", parity_cases(document))
    if out is not None:  # last, because its parity.json says that all is written
        write_parity(out, measurement, document)
    if as_json:
        _print_json(document)
    else:
        print_parity(document, result_console())
        say(drawn_line(0.0, 0, max_new_tokens if measurements is None else None))
    raise typer.Exit(EXIT_CODES[document["verdict"]])


def _thresholds(given: Sequence[str], **others: float | None) -> dict[str, float]:
    """Return thresholds by gate from NAME=NUMBER texts; `with_thresholds` rejects unknown names."""
    thresholds = {name: value for name, value in others.items() if value is not None}
    for text in given:
        name, _, number = text.partition("=")
        try:
            thresholds[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"--gate should be NAME=NUMBER, such as kl_mean=1e-3, found {text!r}") from None
    return thresholds


def _print_json(document: dict[str, Any]) -> None:
    say_json(document)
