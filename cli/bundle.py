"""The commands about bundles: export, generate, chat."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosocial.editing.errors import InputError
from prosocial.editing.protocols import Message

if TYPE_CHECKING:
    from prosocial.export.bundle import Bundle
    from prosocial.export.reply import Reply
    from prosocial.export.steering import Steering


@dataclass(frozen=True)
class Enforced:
    """What binds a reply, by name."""

    safety_config: str | None
    harm_threshold: float
    allowed: list[str]
    preference: dict[str, float]
    reward_scale: float


class ProfileName(StrEnum):
    """How the graph is written."""

    ORT = "ort"
    PORTABLE = "portable"


class PrecisionName(StrEnum):
    """How exact the weights are."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class ProviderName(StrEnum):
    """Where a bundle runs."""

    CPU = "cpu"
    CUDA = "cuda"
    DML = "dml"


BundlePath = Annotated[Path, typer.Argument(help="The bundle folder.")]
Prefer = Annotated[
    list[str] | None, typer.Option(help="Weights by attribute, such as empathy=0.6,helpfulness=0.4 (or repeat it).")
]
SafetyConfigName = Annotated[str, typer.Option("--safety-config", help="Name of a safety config of the bundle.")]
Temperature = Annotated[float, typer.Option(help="0 takes the most likely token; above 0 the reply is drawn.")]
Seed = Annotated[int, typer.Option(help="Seed of the draw.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Most tokens of a reply; default: what the bundle says.")]
Provider = Annotated[ProviderName, typer.Option(help="Where to run.")]
Threads = Annotated[int | None, typer.Option(help="Threads of one operator; default: one per core.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def export_command(
    steered: Annotated[Path, typer.Argument(help="The steered folder; with --plain any checkpoint folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new bundle folder.")],
    profile: Annotated[
        ProfileName, typer.Option(help="ort: fastest on ONNX Runtime; portable: standard operators, any runtime.")
    ] = ProfileName.ORT,
    precision: Annotated[
        PrecisionName, typer.Option(help="int8, int4: weight-only, by block. Head and gate stay in float32 always.")
    ] = PrecisionName.FP32,
    plain: Annotated[bool, typer.Option("--plain", help="The model alone: full logits, no head, no gate.")] = False,
    as_json: Json = False,
) -> None:
    """Trace a steered model into a bundle and compare the graph with torch at once."""
    from prosocial.editing.files import read_json
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
        found = parity["departure_from_fp32"]
        print(
            f"in {parity['precision']}, measured from there on random tokens: {found['max_logit_difference']:.1e} in "
            f"logits, {found['max_risk_difference']:.1e} in risk, {found['n_flips']} of {found['n_decisions']} "
            "decisions differ; prosocial verify says what that costs on real requests"
        )


def generate(
    bundle: BundlePath,
    prompt: Annotated[str, typer.Argument(help="What the user says; - reads it from standard input.")],
    prefer: Prefer = None,
    safety_config: SafetyConfigName = "",
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = None,
    provider: Provider = ProviderName.CPU,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Reply to one prompt; standard error says what the gate enforced."""
    opened = _open(bundle, provider, threads)
    steering = _steering(opened, prefer, safety_config)
    text = sys.stdin.read() if prompt == "-" else prompt
    messages: list[Message] = [{"role": "user", "content": text}]
    reply = opened.generate(
        [messages], steering=steering, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens
    )[0]
    if as_json:
        enforced = _enforced(opened, steering)
        data = {"reply": asdict(reply), "enforced": enforced and asdict(enforced)}
        print(json.dumps(data, ensure_ascii=False))
        return
    print(reply.text.strip())
    print(_gate_line(opened, steering, reply), file=sys.stderr)


def chat(
    bundle: BundlePath,
    prefer: Prefer = None,
    safety_config: SafetyConfigName = "",
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = None,
    provider: Provider = ProviderName.CPU,
    threads: Threads = None,
) -> None:
    """Talk with a bundle: one line at a time, an empty line or the end of the input stops."""
    opened = _open(bundle, provider, threads)
    steering = _steering(opened, prefer, safety_config)
    messages: list[Message] = []
    while text := _next_line():
        messages.append({"role": "user", "content": text})
        reply = opened.generate(
            [messages],
            steering=steering,
            temperature=temperature,
            seed=seed,
            row_keys=[f"turn {len(messages)}"],
            max_new_tokens=max_new_tokens,
        )[0]
        messages.append({"role": "assistant", "content": reply.text})
        print(reply.text.strip())
        print(_gate_line(opened, steering, reply), file=sys.stderr)


def parse_preference(text: str) -> dict[str, float] | None:
    """Return weights by attribute from `empathy=0.6,helpfulness=0.4`; None for an empty text.

    Raises:
        InputError: a part is not NAME=NUMBER, or a name comes twice.

    >>> parse_preference("empathy=0.6, helpfulness=0.4")
    {'empathy': 0.6, 'helpfulness': 0.4}
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise InputError(f"a preference should read NAME=NUMBER, such as empathy=0.6: found {part!r}") from None
        if name in weights:
            raise InputError(f"a preference should name each attribute once: {name!r} comes twice")
        weights[name] = weight
    return weights or None


def _open(folder: Path, provider: ProviderName, threads: int | None) -> "Bundle":
    from prosocial.export.bundle import Bundle

    if threads is not None and threads < 1:
        raise InputError(f"--threads should be at least 1, found {threads}")
    return Bundle.open(folder, provider=provider.value, threads=threads)


def _steering(bundle: "Bundle", prefer: Sequence[str] | None, safety_config: str) -> "Steering":
    from prosocial.export.steering import Steering, control_arrays

    known = bundle.config.safety_configs if bundle.config else {}
    if safety_config and safety_config not in known and Path(safety_config).exists():
        raise InputError(
            f"--safety-config should name a config of this bundle ({', '.join(sorted(known)) or 'it has none'}): "
            f"{safety_config} is a file, and files are refused until they can be signed"
        )
    steering = Steering(preference=parse_preference(",".join(prefer or ())), safety_config=safety_config or None)
    if bundle.config is None and steering != Steering():
        raise InputError("a plain bundle cannot be steered: leave --prefer and --safety-config out")
    if bundle.config is not None:
        control_arrays(bundle.config, [steering])
    return steering


def _enforced(bundle: "Bundle", steering: "Steering") -> Enforced | None:
    """Return what binds the reply; None for a plain bundle."""
    from prosocial.export.steering import control_arrays

    config = bundle.config
    if config is None:
        return None
    arrays = control_arrays(config, [steering])
    weights = zip(config.attributes, map(float, arrays.preference[0]), strict=True)
    return Enforced(
        safety_config=steering.safety_config,
        harm_threshold=round(float(arrays.harm_threshold[0]), 4),
        allowed=[name for name, is_on in zip(config.categories, arrays.allowed[0], strict=True) if is_on],
        preference={name: round(weight, 4) for name, weight in weights if weight > 0},
        reward_scale=round(float(arrays.reward_scale[0]), 4),
    )


def _gate_line(bundle: "Bundle", steering: "Steering", reply: "Reply") -> str:
    enforced = _enforced(bundle, steering)
    if enforced is None:
        return f"gate: none (plain bundle); finish {reply.finish}"
    risk, riskiest = max((value, name) for name, value in reply.max_risk.items())
    return (
        f"gate: threshold {enforced.harm_threshold:.2f}, allowed {', '.join(enforced.allowed) or 'nothing'}, "
        f"preference {', '.join(f'{name} {weight:.2f}' for name, weight in enforced.preference.items())}; "
        f"finish {reply.finish}, {len(reply.events)} times nothing was safe, smallest safe set "
        f"{reply.min_safe_set_size}, highest risk of the model's own next token {risk:.2f} ({riskiest})"
    )


def _next_line() -> str:
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
