"""The commands `export` and `generate`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from prosocial.core.protocols import Message

from .output import note, say, say_json
from .placement_options import Provider
from .reply_options import (
    DRAWING,
    OPENING,
    BundlePath,
    Prefer,
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
    """Export a steered model as a bundle and compare the graph with PyTorch, on the CPU in float32."""
    from prosocial.core.files import read_json
    from prosocial.export.bundle_files.precision import departure_sentence
    from prosocial.export.bundling import export_bundle

    manifest = export_bundle(steered, out, profile=profile.value, precision=precision.value, plain=plain)
    parity = read_json(out / "parity.json")
    if as_json:
        say_json({"out": str(out), "manifest": manifest, "parity": parity})
        return
    size_bytes = sum(entry["size_bytes"] for entry in manifest["files"].values())
    say(
        f"wrote {out}: {manifest['kind']} bundle, profile {manifest['profile']}, {manifest['precision']}, "
        f"{size_bytes / 2**20:.1f} MiB"
    )
    say(
        f"agrees with torch on {parity['n_positions']} positions: largest difference "
        f"{parity['max_logit_difference']:.1e} in logits, {parity['max_risk_difference']:.1e} in risk"
    )
    if not manifest["takes_system"]:
        say("the chat template has no system role: texts of safety configs go into the first user message")
    if manifest["role_markers"]:
        say(f"role markers are plain text: in messages, a backslash is put into {', '.join(manifest['role_markers'])}")
    if sentence := departure_sentence(parity):
        say(sentence)


@with_options("drawing", DRAWING)
@with_options("opening", OPENING)
@with_options("logging", LOGGING)
def generate(
    bundle: BundlePath,
    prompt: Annotated[
        str | None, typer.Argument(help="The user's message; - reads it from standard input.", show_default=False)
    ] = None,
    prefer: Prefer = None,
    safety_config: SafetyConfigName = "",
    trust: Trust = None,
    *,
    batch_file: Annotated[
        Path | None,
        typer.Option(help="JSONL with prompt or messages in each row, instead of PROMPT; a JSON line for each reply."),
    ] = None,
    drawing: dict[str, Any],
    log_probabilities: Annotated[
        bool,
        typer.Option(
            "--log-probabilities",
            help="With --json, include the log-probability of each token under the decoding rule.",
        ),
    ] = False,
    provider: Provider = "cpu",
    threads: Threads = None,
    opening: dict[str, Any],
    logging: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Reply to one prompt, or to a file of them; a line on standard error says what the gate did."""
    conversations = _conversations(prompt, batch_file)
    opened = open_bundle(bundle, provider, threads, **opening)
    requests = RequestLog.open(**logging)
    steering = steering_of(opened, prefer, safety_config, trust or (), requests)
    if not as_json:  # the JSON says it
        say_signature(opened)
    replies = opened.generate(
        conversations,
        steering=steering,
        log_probabilities=log_probabilities,
        on_error="raise" if batch_file is None else "reply",
        **reply_options(opened, drawing),
    )
    for messages, reply in zip(conversations, replies, strict=True):
        requests.request(opened, steering, messages, reply)
        if as_json or batch_file is not None:
            enforced = enforced_by(opened, steering)
            signature = str(opened.signature)
            say_json({"reply": asdict(reply), "enforced": enforced and asdict(enforced), "signature": signature})
        else:
            say(reply.text.strip())
            note(gate_line(opened, steering, reply))


def _conversations(prompt: str | None, batch_file: Path | None) -> list[Sequence[Message]]:
    """Return the conversations to reply to: one message, or the rows of a file.

    Raises:
        InputError: neither or both are given, or a row holds no conversation.
    """
    from prosocial.core.errors import InputError
    from prosocial.core.row_files import read_rows
    from prosocial.core.training_rows import prompt_of

    if (prompt is None) == (batch_file is None):
        raise InputError("generate needs either PROMPT or --batch-file FILE: give one of them")
    if batch_file is not None:
        rows = enumerate(read_rows(batch_file), start=1)
        return [prompt_of(row, where=f"{batch_file} row {number}") for number, row in rows]
    return [[{"role": "user", "content": sys.stdin.read() if prompt == "-" else str(prompt)}]]
