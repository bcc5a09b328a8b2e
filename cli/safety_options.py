"""What `generate`, `chat` and `config test` share about safety configs: whom to trust, and the log of what was done."""

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
    typer.Option(help="Whose signed configs to follow: a trust file (.json) or a public key in PEM; may repeat."),
]
LOGGING = {
    "log": Annotated[Path | None, typer.Option(help="Add a line for each request to this log; needs --log-key.")],
    "log_key": Annotated[
        Path | None, typer.Option(help="Your private key (EC P-256 in PEM), which signs the log's head.")
    ],
    "log_head": Annotated[Path | None, typer.Option(help="The signed head of the log; default: beside the log.")],
}


@dataclass(frozen=True)
class RequestLog:
    """The audit log of a command; without one nothing is written."""

    log: "AuditLog | None" = None

    @classmethod
    def open(cls, log: Path | None, log_key: Path | None, log_head: Path | None) -> "RequestLog":
        """Open the log that the options name, and check that it can be written.

        Raises:
            InputError: one of --log and --log-key without the other, or log and head do not belong together.
        """
        if log is None and log_key is None and log_head is None:
            return cls()
        if log is None or log_key is None:
            raise InputError("--log and --log-key should come together: the key signs where the log ends")
        from prosocial.core.signing import SigningKey
        from prosocial.steering.audit_log.log import AuditLog

        opened = AuditLog(log, log_head or default_head(log), SigningKey.read(log_key))
        opened.require_writable()
        return cls(opened)

    def request(self, bundle: "Bundle", steering: "Steering", messages: Sequence[Message], reply: "Reply") -> None:
        """Add a line for a request to a steered bundle."""
        if self.log is not None and bundle.config is not None:
            from prosocial.steering.audit_log.events import request_event

            self.log.append(request_event(bundle.config, steering, messages, reply))

    def authorise(self, bundle: "Bundle", path: Path, trust: Sequence[Path]) -> "AuthorisedConfig":
        """Return a signed config that is trusted; add a line where it is refused.

        Raises:
            RefusedConfig: it is not to be followed.
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
    """Return where the head of a log lies unless somebody says otherwise."""
    return log.with_name(f"{log.name}.head.json")


def safety_config_of(
    bundle: "Bundle", asked: str, trust: Sequence[Path], log: RequestLog
) -> "str | AuthorisedConfig | None":
    """Return the safety config that a user asks for: a name of the bundle, or a signed file.

    Raises:
        RefusedConfig: a file that is not to be followed.
        InputError: no such config, or a file and nobody to trust.
    """
    if not asked or (bundle.config is not None and asked in bundle.config.safety_configs):
        return asked or None
    if not Path(asked).is_file():
        raise UnknownNameError("safety config", asked, bundle.config.safety_configs if bundle.config else ())
    if not trust:
        raise InputError(f"{asked} is a file: say with --trust whose signature makes it a safety config")
    return log.authorise(bundle, Path(asked), trust)
