"""A bundle as a runtime: checked, then opened in ONNX Runtime, without torch."""

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
from prosocial.steering.authorisation.statements import graph_digests
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs.authorised import AuthorisedConfig, Clock, utc_now
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.prefix import PrefixCache
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.streaming import ReplyStream, stream

from ..bundle_files.manifest import check_manifest
from ..bundle_files.precision import PRECISIONS, Precision
from .session import GraphEngine, GraphSession, Provider, session_options

KINDS = ("steered", "plain")
PROFILES = ("ort", "portable")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened.

    Attributes:
        folder: where it lies. manifest: what it says. config: None for a plain bundle.
        tokenizer, session, engine: ready to run.
    """

    folder: Path
    manifest: dict[str, Any]
    config: DecodingConfig | None
    tokenizer: ChatTokenizer
    session: GraphSession
    engine: GraphEngine

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        prefix_cache: bool = False,
    ) -> "Bundle":
        """Check the manifest and the decoding config, and only then load the graph.

        Args:
            folder: of the bundle. provider: where to run.
            threads: of one operator; None: one for each core that the process may use.
            prefix_cache: keep the keys and values of the prompt read last, so that a next one that begins alike (a
                system prompt, a conversation) is read from where they part. Logits then differ in the last digits
                from those of a prompt read at once. Not for several threads, nor for users who must not learn from
                the time of an answer what others asked.

        Raises:
            ArtefactError: a file is missing, changed, not listed, or does not hold what it should.
            MissingExtraError: onnxruntime (or its build for that provider) is not installed.
        """
        folder = Path(folder)
        manifest = check_manifest(folder)
        kind, profile, context = (manifest.get(key) for key in ("kind", "profile", "context_length"))
        if kind not in KINDS or profile not in PROFILES or not isinstance(context, int | None):
            raise ArtefactError(
                f"{folder} should say its kind {KINDS}, profile {PROFILES} and context_length, "
                f"found {kind!r}, {profile!r} and {context!r}"
            )
        precision_of(folder, manifest)
        config = DecodingConfig.read(folder) if kind == "steered" else None
        if config is None and (folder / DECODING_FILE).is_file():
            raise ArtefactError(f"{folder} is a plain bundle and should hold no {DECODING_FILE}: it would bind nothing")
        tokenizer = ChatTokenizer(folder)
        if config is not None:
            config.check_template(tokenizer.template_digest, source=str(folder))
        options = session_options(_bundle_options(folder), threads=threads)
        session = GraphSession(folder / "model.onnx", shares_cache=profile == "ort", provider=provider, options=options)
        _require_rule(folder, session, config)
        engine = GraphEngine(session, config, context, prefix=PrefixCache() if prefix_cache else None)
        return cls(folder, manifest, config, tokenizer, session, engine)

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
        """Fetch a bundle from the Hub, only the files that its manifest lists, check it, and only then open it.

        Args:
            name: `ORG/NAME`. revision: branch, tag or commit; None: the head of the default branch.
            keys: public keys that are trusted; with any, one of them must have signed the bundle and what is stated
                of it.
            cache: folder of the Hub client's cache; None: its own. endpoint, token: of the Hub; None: its client's own.
            options: as for `open`.

        Raises:
            HubError: the Hub does not serve it, or has no such revision.
            ArtefactError: it is not what its manifest, the Hub or a signature says; nothing was loaded.
            StorageError: there is no room for it.
        """
        from ..hub.snapshot import download

        folder = download(
            name, revision=revision, keys=keys, cache=cache, endpoint=endpoint, token=token, is_bundle=True
        )
        return cls.open(folder, **options)

    def generate(self, conversations: Sequence[Sequence[Message]], **options: Any) -> list[Reply]:
        """Reply to conversations; options as for `prosocial.steering.decoding.loop.generate`."""
        self._require_own(options.get("steering"))
        return generate(self.engine, self.tokenizer, conversations, **options)

    def stream(self, conversation: Sequence[Message], **options: Any) -> ReplyStream:
        """Reply to one conversation piece by piece; options as for `prosocial.steering.decoding.streaming.stream`."""
        self._require_own(options.get("steering"))
        return stream(self.engine, self.tokenizer, conversation, **options)

    def authorise(self, path: Path | str, *, trust: TrustStore, clock: Clock = utc_now) -> AuthorisedConfig:
        """Return a signed safety config from outside, for `Steering.safety_config`.

        Raises:
            RefusedConfig: it is not to be followed; says why.
            InputError: a plain bundle, which nothing binds.
        """
        if self.config is None:
            raise InputError(f"{self.folder} is a plain bundle: a safety config would bind nothing in it")
        return authorise(
            path,
            trust=trust,
            decoding=self.config,
            manifest=self.manifest,
            delegation=self.folder / DELEGATION_FILE,
            clock=clock,
        )

    def _require_own(self, steering: Steering | Sequence[Steering] | None) -> None:
        """Refuse a safety config that was let in for another bundle."""
        for asked in [steering] if isinstance(steering, Steering) else steering or ():
            if isinstance(asked.safety_config, AuthorisedConfig):
                asked.safety_config.require_graph(graph_digests(self.manifest))


def precision_of(folder: Path, manifest: Mapping[str, Any]) -> Precision:
    """Return the precision that a manifest names; one that names none is of float32.

    Raises:
        ArtefactError: there is no such precision.
    """
    named = manifest.get("precision", "fp32")
    if named not in PRECISIONS:
        raise ArtefactError(f"{folder} should say its precision {tuple(PRECISIONS)}, found {named!r}")
    precision: Precision = named
    return precision


def _bundle_options(folder: Path) -> dict[str, Any]:
    """Return the session options that the bundle asks for.

    Raises:
        ArtefactError: `genai_config.json` has another shape.
    """
    path = folder / "genai_config.json"
    if not path.is_file():
        return {}
    found: dict[str, Any] = read_json(path)
    for name in ("model", "decoder", "session_options"):
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise ArtefactError(f"{path} should hold an object at {name}, found {type(found).__name__}")
    return found


def _require_rule(folder: Path, session: GraphSession, config: DecodingConfig | None) -> None:
    """Refuse a graph whose outputs and controls are not those of its kind."""
    expected = set() if config is None else {"risk", "safe_set_size"}
    controls = set() if config is None else {"preference", "allowed", "harm_threshold", "reward_scale"}
    if set(session.result_names) != {"logits", *expected} or session.control_names != controls:
        raise ArtefactError(
            f"{folder} should have the outputs {sorted({'logits', *expected})} and controls {sorted(controls)}, "
            f"found {sorted(session.result_names)} and {sorted(session.control_names)}: export it again"
        )
