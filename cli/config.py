"""The commands on safety configs: show, check, compile, sign, delegate, test, score, revoke."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosocial.core.errors import InputError
from prosocial.core.files import new_file, read_json
from prosocial.core.protocols import Message
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import prompt_of

from .config_score import score
from .output import note, say, say_json, warn
from .placement_options import Provider
from .reply_options import Threads, open_bundle, steering_of
from .safety_options import LOGGING, RequestLog, Trust
from .shared_options import with_options

if TYPE_CHECKING:
    from prosocial.steering.configs import NamedConfig
    from prosocial.steering.configs.reading import Reader, Reading
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.decoding.reply import Reply

config_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Safety configs: show, check, compile, sign, delegate, test, score, revoke (docs/safety-configs.md).",
)
File = Annotated[Path, typer.Argument(help="The safety config: a JSON file.")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="The bundle that the config is for.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The new file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

config_app.command(
    "score", epilog="Example: prosocial config score bundle base --probes probes.jsonl --judge lab -o scores"
)(score)


@config_app.command(epilog="Example: prosocial config show bundle")
def show(
    what: Annotated[Path, typer.Argument(help="A bundle folder, or a config file, signed or not.")],
    as_json: Json = False,
) -> None:
    """Show the safety configs of a bundle, or the content of a file (its signature is not checked)."""
    if what.is_dir():
        decoding, _ = _bundle_facts(what)
        shown: dict[str, Any] = {name: each.model_dump() for name, each in sorted(decoding.safety_configs.items())}
    else:
        shown = _claimed(what)
    if as_json:
        say_json(shown)
    else:
        say_json(shown, indent=2)


@config_app.command(epilog="Example: prosocial config check signed.json --bundle bundle --trust trust.json")
def check(file: File, bundle: BundleFolder, trust: Trust = None, as_json: Json = False) -> None:
    """Check whether a bundle would follow a config: with --trust its signature too, otherwise only the ceilings."""
    decoding, manifest = _bundle_facts(bundle)
    if trust:
        from prosocial.export.bundle_files.verified import VerifiedFiles
        from prosocial.steering.authorisation.authorisation import BINDS_LESS, authorise
        from prosocial.steering.authorisation.delegation import DELEGATION_FILE
        from prosocial.steering.authorisation.trust import TrustStore

        store, delegation = TrustStore.read(trust), bundle / DELEGATION_FILE
        authorised = authorise(
            file,
            trust=store,
            decoding=decoding,
            manifest=manifest,
            delegation=delegation,
            graph_files=VerifiedFiles.open(bundle).graph_files(),
        )
        config = authorised.config
        if not authorised.binds_all:
            warn(f"warning: {config.name}: {BINDS_LESS}")
        until = f"{authorised.not_after:%Y-%m-%d %H:%M} UTC"
        signed = {"serial": authorised.serial, "signed_by": authorised.key_name, "key": authorised.key, "until": until}
    else:
        config, signed = _draft(file), {}
        decoding.require_config(config)
    warnings = _warn(config, _read_by_words(config, decoding))
    if as_json:
        say_json({"name": config.name, "digest": config.digest, "warnings": warnings, **signed})
    elif signed:
        say(f"{config.name}: signed by {signed['signed_by']}, until {signed['until']}, serial {signed['serial']}")
    else:
        lacks = "has no list of allowed categories: compile it" if config.is_text_only else "not signed yet"
        say(f"{config.name}: within the bundle's ceilings, {lacks}")


@config_app.command("compile", epilog="Example: prosocial config compile draft.json --bundle bundle -o config.json")
def compile_command(
    file: File,
    bundle: BundleFolder,
    out: Out,
    endpoint: Annotated[
        str,
        typer.Option(
            help="MODEL@URL of an OpenAI-compatible endpoint that reads the text. [default: keyword matching]"
        ),
    ] = "",
    classifier: Annotated[
        str, typer.Option(help="Folder or Hub id of a text classifier whose labels are mapped to categories.")
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=CATEGORY, for a label whose name differs from the category; may repeat."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without a prompt.")] = False,
    as_json: Json = False,
) -> None:
    """Propose the allowed categories for a config's text, ask for approval, and write the unsigned config."""
    from prosocial.steering.configs.reading import with_mask

    if out.exists():
        raise InputError(f"{out} should not exist yet: choose another file")
    decoding, _ = _bundle_facts(bundle)
    draft = _draft(file)
    reading = _reader(endpoint, classifier, label or (), decoding)(draft.text, decoding.category_registry)
    may_allow = [name for name, is_open in zip(decoding.categories, decoding.ceiling_mask(), strict=True) if is_open]
    config = with_mask(draft, reading, may_allow=may_allow)
    warnings = _warn(config, reading)
    warn(f"text: {config.text}\nallowed: {', '.join(config.allowed) or 'nothing'}")
    if not yes and not _approved():
        raise typer.Exit(1)
    decoding.require_config(config)
    with new_file(out) as path:
        config.write(path)
    if as_json:
        say_json({"out": str(out), "allowed": config.allowed, "warnings": warnings})
    else:
        say(f"wrote {out}, not signed yet")


@config_app.command(
    epilog="Example: prosocial config sign config.json --bundle bundle --key key.pem --valid-days 30 -o signed.json"
)
def sign(
    file: File,
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="Your private key: EC P-256 in PEM (encrypted: PROSOCIAL_KEY_PASSWORD).")],
    valid_days: Annotated[float, typer.Option(help="How long it holds, from now.")],
    out: Out,
    as_json: Json = False,
) -> None:
    """Sign a config for use with one bundle."""
    from prosocial.core.signing import SigningKey
    from prosocial.steering.authorisation.authorisation import sign_config

    signer, config = SigningKey.read(key), _draft(file)
    decoding, manifest = _bundle_facts(bundle)
    _warn(config, _read_by_words(config, decoding))
    claims = sign_config(config, out, key=signer, decoding=decoding, manifest=manifest, valid_days=valid_days)
    if as_json:
        say_json({"out": str(out), "serial": claims.serial, "key": signer.public.hint})
    else:
        say(f"wrote {out}: {config.name} until {claims.not_after:%Y-%m-%d %H:%M} UTC, serial {claims.serial}")


@config_app.command(
    epilog="Example: prosocial config test signed.json --bundle bundle --trust key.pub --prompts prompts.jsonl"
)
@with_options("logging", LOGGING)
def test(
    config: Annotated[str, typer.Argument(help="A config of the bundle, or a signed file (see --trust).")],
    bundle: BundleFolder,
    prompts: Annotated[Path, typer.Option(help='JSONL with a "prompt" in each row.')],
    trust: Trust = None,
    provider: Provider = "cpu",
    threads: Threads = None,
    *,
    logging: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Generate replies under a config and report what the gate did; the replies are not shown."""
    conversations = _conversations(prompts)
    opened = open_bundle(bundle, provider, threads)
    requests = RequestLog.open(**logging)
    steering = steering_of(opened, None, config, trust or (), requests)
    replies = opened.generate(conversations, steering=steering, on_error="reply")
    for messages, reply in zip(conversations, replies, strict=True):
        requests.request(opened, steering, messages, reply)
    rows = [_gate_row(number, reply) for number, reply in enumerate(replies, start=1)]
    counts = Counter(str(row["finish"]) for row in rows)
    if as_json:
        say_json({"config": steering.config_name, "counts": counts, "replies": rows})
        return
    for row in rows:
        say(f"prompt {row['prompt']}: finish {row['finish']}; {'; '.join(row['gate']) or 'the gate did nothing'}")
    say(f"{steering.config_name}: {', '.join(f'{n} {finish}' for finish, n in sorted(counts.items()))}")


@config_app.command(
    epilog="Example: prosocial config delegate keys.json --bundle bundle --key operator.pem --valid-days 90"
)
def delegate(
    keys: Annotated[Path, typer.Argument(help="A trust file: the keys to delegate to, each with its scope.")],
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="Your private key: EC P-256 in PEM (encrypted: PROSOCIAL_KEY_PASSWORD).")],
    valid_days: Annotated[float, typer.Option(help="How long it holds, from now.")],
    as_json: Json = False,
) -> None:
    """Delegate the signing of configs for a bundle: who trusts your key also trusts these keys, within their scope."""
    from prosocial.core.signing import SigningKey
    from prosocial.steering.authorisation.delegation import DELEGATION_FILE, delegate_keys

    signer, (decoding, manifest) = SigningKey.read(key), _bundle_facts(bundle)
    out = bundle / DELEGATION_FILE
    named = delegate_keys(keys, out, key=signer, decoding=decoding, manifest=manifest, valid_days=valid_days)
    if as_json:
        say_json({"out": str(out), "keys": sorted(named.keys), "serial": named.serial})
    else:
        until = f"{named.not_after:%Y-%m-%d %H:%M} UTC"
        say(f"wrote {out}: {', '.join(sorted(named.keys))} until {until}, serial {named.serial}")


@config_app.command(epilog="Example: prosocial config revoke trust.json --serial 0123456789abcdef0123456789abcdef")
def revoke(
    trust_file: Annotated[Path, typer.Argument(help="The operator's trust file.")],
    serial: Annotated[list[str] | None, typer.Option(help="Serial number of a signed config; may repeat.")] = None,
    key: Annotated[list[Path] | None, typer.Option(help="A public key in PEM; may repeat.")] = None,
    as_json: Json = False,
) -> None:
    """Revoke signed configs or keys permanently."""
    from prosocial.core.signing import TrustedKey
    from prosocial.steering.authorisation.trust import revoke_in

    if not serial and not key:
        raise InputError("--serial or --key should say what to revoke, neither is given")
    after = revoke_in(trust_file, serials=serial or (), keys=[TrustedKey.read(path).hint for path in key or ()])
    if as_json:
        say_json({"revoked_serials": after.revoked_serials, "revoked_keys": after.revoked_keys})
    else:
        say(f"{trust_file}: {len(after.revoked_serials)} serials and {len(after.revoked_keys)} keys are revoked")


def _bundle_facts(folder: Path) -> "tuple[DecodingConfig, dict[str, Any]]":
    """Return the decoding config and the checked manifest of a steered bundle, without loading its graph."""
    from prosocial.export.bundle_files.verified import VerifiedFiles
    from prosocial.steering.decoding.config import DecodingConfig

    files = VerifiedFiles.open(folder)
    with files.side_files() as place:
        return DecodingConfig.read(place), files.manifest


def _draft(path: Path) -> "NamedConfig":
    from prosocial.steering.configs import NamedConfig

    return NamedConfig.read(path)


def _claimed(path: Path) -> dict[str, Any]:
    """Return the content of a signed or unsigned config file, without checking a signature."""
    from prosocial.core.signing import BrokenSignature
    from prosocial.core.signing.envelope import unverified

    if "dsseEnvelope" not in read_json(path):
        return _draft(path).model_dump(by_alias=True)
    try:
        note("signature not checked: prosocial config check does that")
        predicate: dict[str, Any] = unverified(path)["predicate"]
        return predicate
    except BrokenSignature as broken:
        raise InputError(str(broken)) from None


def _read_by_words(config: "NamedConfig", decoding: "DecodingConfig") -> "Reading":
    from prosocial.steering.configs.reading import read_by_words

    return read_by_words(config.text, decoding.category_registry)


def _reader(endpoint: str, classifier: str, labels: Sequence[str], decoding: "DecodingConfig") -> "Reader":
    """Return the reader of config texts: an endpoint, a classifier (its label mapping is printed), or keywords."""
    from prosocial.steering.configs.reading import read_by_words

    if endpoint and classifier:
        raise InputError("only one of --endpoint and --classifier should be given, found both: leave one out")
    if labels and not classifier:
        raise InputError("--label should be used with --classifier, which is missing: add it or leave --label out")
    if endpoint:
        from prosocial.core.chat_endpoint import ChatEndpoint
        from prosocial.steering.configs.endpoint import TIMEOUT_SECONDS, EndpointReader

        return EndpointReader(ChatEndpoint.named(endpoint, timeout=TIMEOUT_SECONDS))
    if not classifier:
        return read_by_words
    from prosocial.evaluation.judges.config_reader import ClassifierReader

    given = dict(_pair(each) for each in labels)
    reader = ClassifierReader(classifier, categories=decoding.categories, labels=given)
    note(f"classifier: {reader.told}")
    return reader


def _pair(label: str) -> tuple[str, str]:
    name, is_there, category = label.rpartition("=")
    if not is_there or not name or not category:
        raise InputError(f"--label should be LABEL=CATEGORY, found {label!r}")
    return name, category


def _warn(config: "NamedConfig", reading: "Reading") -> list[str]:
    """Print and return the contradictions between a config's text and its mask of allowed categories."""
    from prosocial.steering.configs.reading import contradictions

    warnings = [] if config.is_text_only else contradictions(config, reading)
    for each in warnings:
        warn(f"warning: {each}")
    if warnings:
        warn(f"text: {config.text}\nmask: {', '.join(config.allowed) or 'nothing'}")
    return warnings


def _approved() -> bool:
    if not sys.stdin.isatty():
        raise InputError("the allowed categories should be approved: answer in a terminal, or pass --yes")
    return typer.confirm("Write it?", default=False, err=True)


def _conversations(prompts: Path) -> list[Sequence[Message]]:
    return [prompt_of(row, where=f"{prompts} row {at}") for at, row in enumerate(read_rows(prompts), start=1)]


def _gate_row(number: int, reply: "Reply") -> dict[str, Any]:
    """Return the finish reason and the gate's interventions for one prompt."""
    events = [f"{each.action} after {each.step} tokens ({each.reason})" for each in reply.events]
    return {
        "prompt": number,
        "finish": reply.finish,
        "gate": events,
        "smallest_safe_set": reply.min_safe_set_size,
        "max_risk": {name: round(value, 4) for name, value in reply.max_risk.items()},
        "error": reply.error,
    }
