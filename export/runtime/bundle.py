"""Opening a bundle: verification of its files, then an ONNX Runtime session, without torch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json
from prosocial.core.protocols import Message
from prosocial.core.signing.keys import TrustedKey
from prosocial.steering.authorisation.authorisation import authorise
from prosocial.steering.authorisation.delegation import DELEGATION_FILE
from prosocial.steering.authorisation.statements import bound_digests
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs.authorised import AuthorisedConfig, Clock, utc_now
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.prefix import PrefixCache
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.streaming import ReplyStream, stream

from ..bundle_files.precision import PRECISIONS, Precision
from ..bundle_files.prompt_record import check_recorded_prompts
from ..bundle_files.signature import SignatureState, signature_of
from ..bundle_files.verified import GRAPH_FILE, VerifiedFiles
from .session import GraphEngine, GraphSession, session_options

KINDS = ("steered", "plain")
PROFILES = ("ort", "portable")
_log = logging.getLogger("prosocial.bundle")
_log.addHandler(logging.NullHandler())  # the application decides where log messages go


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: folder of the bundle.
        manifest: content of `manifest.json`.
        config: the decoding config; None for a plain bundle.
        tokenizer: the chat tokenizer.
        session: the ONNX Runtime session of the graph.
        engine: the graph as an engine of the decoding loop.
        files: the verified files that everything was read from.
        signature: whether the bundle is signed, and by whom.
    """

    folder: Path
    manifest: dict[str, Any]
    config: DecodingConfig | None
    tokenizer: ChatTokenizer
    session: GraphSession
    engine: GraphEngine
    files: VerifiedFiles
    signature: SignatureState

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        prefix_cache: bool = False,
        keys: Sequence[TrustedKey] = (),
        copy: bool = False,
    ) -> "Bundle":
        """Verify every file against the manifest, then load the graph.

        Each file is opened once, and what was hashed is what is used: replacing or renaming files meanwhile changes
        nothing. Only listed files are read, also by the graph.

        Args:
            folder: folder of the bundle.
            provider: execution provider of ONNX Runtime, such as "cpu", "cuda" or "dml".
            threads: threads per operator; None for one per core that the process may use.
            prefix_cache: keep the key/value cache of the last prompt, so that the prefill of the next prompt skips
                their common prefix (a system prompt, a conversation). Logits may then differ in the last digits from
                those of a full prefill. Do not use it where users must not infer each other's prompts from response
                times.
            keys: trusted public keys; if there are any, one of them must have signed the bundle and its statements.
            copy: read all files into private memory instead of mapping them, against programs that write into the
                files of an opened bundle.

        Raises:
            ArtefactError: a file is missing, changed or not listed in the manifest, its content is invalid, or, with
                keys, a signature is missing or by another key.
            InputError: the installed onnxruntime lacks the provider.
            MissingExtraError: onnxruntime is not installed.
        """
        folder = Path(folder)
        files = VerifiedFiles.open(folder, copy=copy)
        signature = signature_of(files, keys)
        manifest = files.manifest
        kind, profile, context = (manifest.get(key) for key in ("kind", "profile", "context_length"))
        if kind not in KINDS or profile not in PROFILES or not isinstance(context, int | None):
            raise ArtefactError(
                f"{folder} should say its kind {KINDS}, profile {PROFILES} and context_length, "
                f"found {kind!r}, {profile!r} and {context!r}"
            )
        precision_of(folder, manifest)
        config, tokenizer, own_options = _read_sides(files, is_steered=kind == "steered")
        session = GraphSession(
            folder / GRAPH_FILE,
            shares_cache=profile == "ort",
            provider=provider,
            options=session_options(own_options, threads=threads),
            graph=files.graph,
            weights=files.weights(),
        )
        _require_rule(folder, session, config)
        engine = GraphEngine(session, config, context, prefix=PrefixCache() if prefix_cache else None)
        _log.info("%s: %s", folder, signature)
        return cls(folder, manifest, config, tokenizer, session, engine, files, signature)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        keys: Sequence[TrustedKey] = (),
        cache: Path | str | None = None,
        endpoint: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> "Bundle":
        """Download a bundle from the Hub, verify it, and open it; only files listed in its manifest are downloaded.

        Args:
            name: repository, `ORG/NAME`.
            revision: branch, tag or commit; None for the head of the default branch.
            keys: trusted public keys; if there are any, one of them must have signed the bundle and its statements.
            cache: cache folder of the Hub client; None for its default.
            endpoint: address of the Hub; None for the client's default.
            token: token for the Hub; None for the client's default.
            options: options of `open`.

        Raises:
            HubError: the Hub refuses, or has no such repository or revision.
            ArtefactError: a file differs from the manifest, the Hub's listing or the signature; nothing was loaded.
            StorageError: there is not enough disk space.
        """
        from ..hub.snapshot import download

        folder = download(
            name, revision=revision, keys=keys, cache=cache, endpoint=endpoint, token=token, is_bundle=True
        )
        return cls.open(folder, keys=keys, **options)

    def generate(self, conversations: Sequence[Sequence[Message]], **options: Any) -> list[Reply]:
        """Reply to conversations; `options` are those of `prosocial.steering.decoding.loop.generate`."""
        self._require_own(options.get("steering"))
        return generate(self.engine, self.tokenizer, conversations, **options)

    def stream(self, conversation: Sequence[Message], **options: Any) -> ReplyStream:
        """Stream one reply; `options` are those of `prosocial.steering.decoding.streaming.stream`."""
        self._require_own(options.get("steering"))
        return stream(self.engine, self.tokenizer, conversation, **options)

    def authorise(self, path: Path | str, *, trust: TrustStore, clock: Clock = utc_now) -> AuthorisedConfig:
        """Verify a signed external safety config, for use as `Steering.safety_config`.

        Args:
            path: path of the signed config.
            trust: trusted keys and revocations.
            clock: returns the current time.

        Raises:
            RefusedConfig: the config must not be used; the message says why.
            InputError: the bundle is plain and has no gate that could enforce a config.
        """
        if self.config is None:
            raise InputError(f"{self.folder} is a plain bundle: it cannot enforce a safety config")
        return authorise(
            path,
            trust=trust,
            decoding=self.config,
            manifest=self.manifest,
            delegation=self.folder / DELEGATION_FILE,
            graph_files=self.files.graph_files(),
            clock=clock,
        )

    def _require_own(self, steering: Steering | Sequence[Steering] | None) -> None:
        """Refuse a safety config that was authorised for another bundle."""
        for each in [steering] if isinstance(steering, Steering) else steering or ():
            if isinstance(each.safety_config, AuthorisedConfig):
                each.safety_config.require_bundle(bound_digests(self.manifest))


def _read_sides(
    files: VerifiedFiles, *, is_steered: bool
) -> tuple[DecodingConfig | None, ChatTokenizer, dict[str, Any]]:
    """Return decoding config, tokenizer and session options, from private copies of the verified files."""
    with files.side_files() as place:
        if not is_steered and (place / DECODING_FILE).is_file():
            raise ArtefactError(f"{files.folder} is a plain bundle and should hold no {DECODING_FILE}: delete it")
        config = DecodingConfig.read(place) if is_steered else None
        tokenizer = ChatTokenizer(place)
        if config is not None:
            config.check_template(tokenizer.template_digest, source=str(files.folder))
        check_recorded_prompts(place, tokenizer)
        return config, tokenizer, _bundle_options(place)


def precision_of(folder: Path, manifest: Mapping[str, Any]) -> Precision:
    """Return the precision in a manifest; "fp32" if it names none, as manifests of early versions.

    Raises:
        ArtefactError: the precision is unknown.
    """
    named = manifest.get("precision", "fp32")
    if named not in tuple(PRECISIONS):  # a list: `named` may be of any type
        raise ArtefactError(f"{folder} should say its precision {tuple(PRECISIONS)}, found {named!r}")
    precision: Precision = named
    return precision


def _bundle_options(folder: Path) -> dict[str, Any]:
    """Return the session options in the bundle's `genai_config.json`.

    Raises:
        ArtefactError: the file has another structure.
    """
    path = folder / "genai_config.json"
    if not path.is_file():
        return {}
    section: dict[str, Any] = read_json(path)
    for name in ("model", "decoder", "session_options"):
        section = section.get(name, {})
        if not isinstance(section, dict):
            raise ArtefactError(f"{path} should hold an object at {name}, found {type(section).__name__}")
    return section


def _require_rule(folder: Path, session: GraphSession, config: DecodingConfig | None) -> None:
    """Refuse a graph whose outputs or control inputs differ from those of a steered (or plain) graph."""
    expected = set() if config is None else {"risk", "safe_set_size"}
    controls = set() if config is None else {"preference", "allowed", "harm_threshold", "reward_scale"}
    if set(session.result_names) != {"logits", *expected} or session.control_names != controls:
        raise ArtefactError(
            f"{folder} should have the outputs {sorted({'logits', *expected})} and controls {sorted(controls)}, "
            f"found {sorted(session.result_names)} and {sorted(session.control_names)}: export it again"
        )
