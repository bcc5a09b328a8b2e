"""Shared by `generate` and `chat`: options, opening the bundle, and the steering of a reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosocial.core.errors import InputError
from prosocial.steering.decoding.sampling import Sampling

from .output import note
from .safety_options import RequestLog, safety_config_of
from .shared_options import options_of

if TYPE_CHECKING:
    from prosocial.export.runtime.bundle import Bundle
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.reply import Reply
    from prosocial.steering.decoding.requests import ReplyOptions


@dataclass(frozen=True)
class Enforced:
    """The constraints on a reply: safety config, threshold, allowed categories and preference, by name."""

    safety_config: str | None
    harm_threshold: float
    allowed: list[str]
    preference: dict[str, float]
    reward_scale: float


BundlePath = Annotated[Path, typer.Argument(help="The bundle folder.")]
Prefer = Annotated[
    list[str] | None, typer.Option(help="Weights by attribute, such as empathy=0.6,helpfulness=0.4; may repeat.")
]
# Whom to trust as the publisher of a bundle, and how its files are read.
OPENING = {
    "key": Annotated[
        list[Path] | None,
        typer.Option(
            help="A public key (PEM): one of these must have signed the bundle and its statements; may repeat."
        ),
    ],
    "copy": Annotated[
        bool, typer.Option("--copy", help="Read the bundle into private memory, where no other program can write.")
    ],
}
MaxNewTokens = Annotated[int | None, typer.Option(help="Maximum number of tokens of a reply. [default: the bundle's]")]
Threads = Annotated[int | None, typer.Option(help="Threads per operator. [default: one per available core]")]
Stop = Annotated[list[str] | None, typer.Option(help="End the reply before this text; may repeat.")]
# The options that control sampling; each defaults to the bundle's value.
DRAWING = options_of(Sampling) | {"stop": Stop, "max_new_tokens": MaxNewTokens}


def parse_preference(text: str) -> dict[str, float] | None:
    """Return weights by attribute from `empathy=0.6,helpfulness=0.4`; None for an empty text.

    Raises:
        InputError: a part is not NAME=NUMBER, or a name is repeated.

    Examples:
        >>> parse_preference("empathy=0.6, helpfulness=0.4")
        {'empathy': 0.6, 'helpfulness': 0.4}
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise InputError(f"a preference should be NAME=NUMBER, such as empathy=0.6, found {part!r}") from None
        if name in weights:
            raise InputError(f"a preference should name each attribute once, found {name!r} twice")
        weights[name] = weight
    return weights or None


def open_bundle(
    folder: Path,
    provider: str,
    threads: int | None,
    *,
    prefix_cache: bool = False,
    key: Sequence[Path] | None = None,
    copy: bool | None = None,
) -> "Bundle":
    """Open a bundle.

    Args:
        folder: the bundle.
        provider: execution provider of ONNX Runtime.
        threads: threads per operator; None for one per available core.
        prefix_cache: as for `Bundle.open`.
        key: paths of trusted public keys.
        copy: as for `Bundle.open`.

    Raises:
        ArtefactError: the folder is not a valid bundle, or none of the keys signed it.
        MissingExtraError: onnxruntime is not installed.
        InputError: `threads` is less than 1, or the installed onnxruntime lacks the provider.
    """
    from prosocial.core import TrustedKey
    from prosocial.export.runtime.bundle import Bundle

    if threads is not None and threads < 1:
        raise InputError(f"--threads should be at least 1, found {threads}")
    return Bundle.open(
        folder,
        provider=provider,
        threads=threads,
        prefix_cache=prefix_cache,
        keys=[TrustedKey.read(path) for path in key or ()],
        copy=bool(copy),
    )


def say_signature(bundle: "Bundle") -> None:
    """Say on standard error whether a bundle is signed, and by whom."""
    advice = ": --key checks it" if bundle.signature.state == "not checked" else ""
    note(f"signature: {bundle.signature}{advice}")


def steering_of(
    bundle: "Bundle",
    prefer: Sequence[str] | None,
    safety_config: str,
    trust: Sequence[Path] = (),
    log: RequestLog | None = None,
) -> "Steering":
    """Return the steering that the options request, checked against the bundle.

    Args:
        bundle: bundle that replies.
        prefer: preferences, each NAME=NUMBER or several with commas.
        safety_config: name of a config in the bundle, or path of a signed file.
        trust: trust files or public keys whose signed configs are followed.
        log: audit log, which records a refused config.

    Raises:
        InputError: the preference or safety config is unknown to the bundle, or the bundle is plain.
        RefusedConfig: a signed safety config is not trusted.
    """
    from prosocial.steering.decoding.controls import Steering, control_arrays

    preference = parse_preference(",".join(prefer or ()))
    if bundle.config is None:
        if preference or safety_config:
            raise InputError("a plain bundle cannot be steered: leave --prefer and --safety-config out")
        return Steering()
    chosen = safety_config_of(bundle, safety_config, trust, log or RequestLog())
    steering = Steering(preference=preference, safety_config=chosen)
    control_arrays(bundle.config, [steering])
    return steering


def reply_options(bundle: "Bundle", drawing: Mapping[str, Any]) -> "ReplyOptions":
    """Return the decoding options of a bundle, changed by the options of `DRAWING` that the user set.

    Raises:
        InputError: a value is out of range.
    """
    from prosocial.steering.decoding.requests import reply_settings

    changes = {name: drawing[name] for name in Sampling.model_fields}
    sampling = reply_settings(bundle.engine).sampling.changed(**changes)
    return {"sampling": sampling, "stop": drawing["stop"] or (), "max_new_tokens": drawing["max_new_tokens"]}


def enforced_by(bundle: "Bundle", steering: "Steering") -> Enforced | None:
    """Return the constraints on a reply; None for a plain bundle."""
    from prosocial.steering.decoding.controls import control_arrays, in_force

    config = bundle.config
    if config is None:
        return None
    arrays = control_arrays(config, [steering])
    weights = zip(config.attributes, map(float, arrays.preference[0]), strict=True)
    return Enforced(
        safety_config=steering.config_name,
        harm_threshold=in_force(arrays.harm_threshold[0]),
        allowed=[name for name, is_on in zip(config.categories, arrays.allowed[0], strict=True) if is_on],
        preference={name: round(weight, 4) for name, weight in weights if weight > 0},
        reward_scale=in_force(arrays.reward_scale[0]),
    )


def exact(value: float) -> str:
    """Return a number with two decimals, or with all that it has.

    Examples:
        >>> exact(0.3), exact(0.29996)
        ('0.30', '0.29996')
    """
    return f"{value:.2f}" if float(f"{value:.2f}") == value else str(value)


def gate_line(bundle: "Bundle", steering: "Steering", reply: "Reply") -> str:
    """Return one line that reports what the gate did during a reply."""
    enforced = enforced_by(bundle, steering)
    if enforced is None:
        return f"gate: none (plain bundle); finish {reply.finish}"
    n_phrases = sum(event.reason == "phrase" for event in reply.events)
    phrases = f"{n_phrases} times a forbidden phrase came up, " if n_phrases else ""
    risk, riskiest = max((value, name) for name, value in reply.max_risk.items())
    return (
        f"gate: threshold {exact(enforced.harm_threshold)}, allowed {', '.join(enforced.allowed) or 'nothing'}, "
        f"preference {', '.join(f'{name} {weight:.2f}' for name, weight in enforced.preference.items())}; "
        f"finish {reply.finish}, {len(reply.events) - n_phrases} times nothing was safe, {phrases}smallest safe set "
        f"{reply.min_safe_set_size}, highest risk of the model's own next token {risk:.2f} ({riskiest})"
    )
