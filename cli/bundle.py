"""The commands `export` and `generate`."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from prosocial.core.protocols import Message

from .reply_options import (
    DRAWING,
    OPENING,
    BundlePath,
    Prefer,
    Provider,
    ProviderName,
    Threads,
    enforced_by,
    gate_line,
    open_bundle,
    reply_options,
    say_signature,
    steering_of,
)
from .safety_options import LOGGING, RequestLog, SafetyConfigName, Trust
from .shared_options import with_options

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class ProfileName(StrEnum):
    """The operators of the exported graph."""

    ORT = "ort"
    PORTABLE = "portable"


class PrecisionName(StrEnum):
    """The precision of the exported weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


def export_command(
    steered: Annotated[Path, typer.Argument(help="The steered folder; with --plain, any checkpoint folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new bundle folder.")],
    profile: Annotated[
        ProfileName, typer.Option(help="ort: fastest on ONNX Runtime; portable: standard operators, any runtime.")
    ] = ProfileName.ORT,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="int8 and int4: weight-only, block-wise. Head and gate always stay in float32."),
    ] = PrecisionName.FP32,
    plain: Annotated[
        bool, typer.Option("--plain", help="Export the model alone: full logits, no head, no gate.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a steered model as a bundle and compare the graph with PyTorch."""
    from prosocial.core.files import read_json
    from prosocial.export.bundling import export_bundle

    manifest = export_bundle(steered, out, profile=profile.value, precision=precision.value, plain=plain)
    parity = read_json(out / "parity.json")
    if as_json:
        print(json.dumps({"out": str(out), "manifest": manifest, "parity": parity}, ensure_ascii=False))
        return
    size_bytes = sum(entry["size_bytes"] for entry in manifest["files"].values())
    print(
        f"wrote {out}: {manifest['kind']} bundle, profile {manifest['profile']}, {manifest['precision']}, "
        f"{size_bytes / 2**20:.1f} MiB"
    )
    print(
        f"agrees with torch on {parity['n_positions']} positions: largest difference "
        f"{parity['max_logit_difference']:.1e} in logits, {parity['max_risk_difference']:.1e} in risk"
    )
    if "departure_from_fp32" in parity:
        departure = parity["departure_from_fp32"]
        print(
            f"in {parity['precision']}, difference from float32 on random tokens: "
            f"{departure['max_logit_difference']:.1e} in logits, {departure['max_risk_difference']:.1e} in risk, "
            f"{departure['n_flips']} of {departure['n_decisions']} decisions differ; prosocial verify measures the "
            "effect on real requests"
        )


@with_options("drawing", DRAWING)
@with_options("opening", OPENING)
@with_options("logging", LOGGING)
def generate(
    bundle: BundlePath,
    prompt: Annotated[str, typer.Argument(help="The user's message; - reads it from standard input.")],
    prefer: Prefer = None,
    safety_config: SafetyConfigName = "",
    trust: Trust = None,
    *,
    drawing: dict[str, Any],
    log_probabilities: Annotated[
        bool,
        typer.Option(
            "--log-probabilities",
            help="With --json, include the log-probability of each token under the decoding rule.",
        ),
    ] = False,
    provider: Provider = ProviderName.CPU,
    threads: Threads = None,
    opening: dict[str, Any],
    logging: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Reply to one prompt; a line on standard error says what the gate did."""
    requests = RequestLog.open(**logging)
    opened = open_bundle(bundle, provider, threads, **opening)
    steering = steering_of(opened, prefer, safety_config, trust or (), requests)
    text = sys.stdin.read() if prompt == "-" else prompt
    messages: list[Message] = [{"role": "user", "content": text}]
    reply = opened.generate(
        [messages],
        steering=steering,
        log_probabilities=log_probabilities,
        **reply_options(opened, drawing),
    )[0]
    requests.request(opened, steering, messages, reply)
    if as_json:
        enforced = enforced_by(opened, steering)
        signature = str(opened.signature)
        data = {"reply": asdict(reply), "enforced": enforced and asdict(enforced), "signature": signature}
        print(json.dumps(data, ensure_ascii=False))
        return
    print(reply.text.strip())
    say_signature(opened)
    print(gate_line(opened, steering, reply), file=sys.stderr)
