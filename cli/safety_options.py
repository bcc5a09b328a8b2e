"""Options for safety configs shared by `generate`, `chat` and `config test`: trusted keys and the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Message

if TYPE_CHECKING:
    from prosocial.export.runtime.bundle import Bundle
    from prosocial.steering.audit_log.log import AuditLog
    from prosocial.steering.configs import AuthorisedConfig
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.reply import Reply

SafetyConfigName = Annotated[
    str, typer.Option("--safety-config", help="A safety config of the bundle, or a signed file (see --trust).")
]
Trust = Annotated[
    list[Path] | None,
    typer.Option(help="Trusted signers of configs: a trust file (.json) or a public key in PEM; may repeat."),
]
LOGGING = {
    "log": Annotated[
        Path | None, typer.Option(help="Append a line for each request to this audit log; needs --log-key.")
    ],
    "log_key": Annotated[
        Path | None, typer.Option(help="Your private key (EC P-256 in PEM), which signs the head of the log.")
    ],
    "log_head": Annotated[Path | None, typer.Option(help="The signed head of the log. [default: LOG.head.json]")],
}


@dataclass(frozen=True)
class RequestLog:
    """The audit log of a command; None if no log was requested."""

    log: "AuditLog | None" = None

    @classmethod
    def open(cls, log: Path | None, log_key: Path | None, log_head: Path | None) -> "RequestLog":
        """Open the log that the options name, and check that it can be written.

        Raises:
            InputError: only one of --log and --log-key is given, or the head does not match the log.
        """
        if log is None and log_key is None and log_head is None:
            return cls()
        if log is None or log_key is None:
            raise InputError(
                "--log and --log-key should be used together, since the key signs the head of the log: add the other"
            )
        from prosocial.core.signing import SigningKey
        from prosocial.steering.audit_log.log import AuditLog

        opened = AuditLog(log, log_head or default_head(log), SigningKey.read(log_key))
        opened.require_writable()
        return cls(opened)

    def request(self, bundle: "Bundle", steering: "Steering", messages: Sequence[Message], reply: "Reply") -> None:
        """Append a line for a request to a steered bundle."""
        if self.log is not None and bundle.config is not None:
            from prosocial.steering.audit_log.events import request_event

            self.log.append(request_event(bundle.config, steering, messages, reply))

    def started(self, bundle: "Bundle", steering: "Steering", messages: Sequence[Message]) -> None:
        """Append a line for a request whose reply is shown while it is generated, before anything is shown."""
        if self.log is not None and bundle.config is not None:
            from prosocial.steering.audit_log.events import started_event

            self.log.append(started_event(bundle.config, steering, messages))

    def stopped(self, messages: Sequence[Message], shown: str) -> None:
        """Append a line for a started request that ended early."""
        if self.log is not None:
            from prosocial.steering.audit_log.events import stopped_event

            self.log.append(stopped_event(messages, shown))

    def authorise(self, bundle: "Bundle", path: Path, trust: Sequence[Path]) -> "AuthorisedConfig":
        """Return a signed config after checking that it is trusted; a refusal is appended to the log.

        Raises:
            RefusedConfig: the config is not trusted or not valid for this bundle.
        """
        from prosocial.steering.audit_log.events import refusal_event
        from prosocial.steering.authorisation.trust import TrustStore
        from prosocial.steering.configs import RefusedConfig

        try:
            return bundle.authorise(path, trust=TrustStore.read(trust))
        except RefusedConfig as refused:
            if self.log is not None:
                self.log.append(refusal_event(path, refused))
            raise


def default_head(log: Path) -> Path:
    """Return the default path of a log's head: `LOG.head.json`."""
    return log.with_name(f"{log.name}.head.json")


def _looks_like_a_path(text: str) -> bool:
    return len(Path(text).parts) > 1 or Path(text).suffix == ".json"


def safety_config_of(
    bundle: "Bundle", requested: str, trust: Sequence[Path], log: RequestLog
) -> "str | AuthorisedConfig | None":
    """Return the safety config with a requested name or path, or None for the bundle's default.

    Raises:
        RefusedConfig: the signed file is not trusted or not valid for this bundle.
        UnknownNameError: there is no such config or file.
        InputError: it is a file, but `trust` is empty.
    """
    if not requested or (bundle.config is not None and requested in bundle.config.safety_configs):
        return requested or None
    if not Path(requested).is_file() and _looks_like_a_path(requested):
        raise InputError(f"expected a signed safety config at {requested}: there is no such file; check the path")
    if not Path(requested).is_file():
        raise UnknownNameError("safety config", requested, bundle.config.safety_configs if bundle.config else ())
    if not trust:
        raise InputError(
            f"{requested} is a file, whose signer should be trusted: add --trust with a trust file or a public key"
        )
    return log.authorise(bundle, Path(requested), trust)
