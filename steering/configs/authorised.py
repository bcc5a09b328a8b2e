"""An external safety config whose signature by a trusted key has been verified (torch-free)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from .refusal import Reason, RefusedConfig
from .safety_config import NamedConfig

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class AuthorisedConfig:
    """A verified safety config, valid for one graph and a limited time; only `authorise` should create one.

    Attributes:
        config: the signed config.
        serial: serial number of the signed statement.
        key: digest of the signer's public key.
        key_name: name of the signer's key.
        not_before: start of validity.
        not_after: end of validity (exclusive).
        graph: BLAKE3 digests, by file name, of the graph that the config was signed for.
        categories: digest of the category registry that the config was signed for.
        clock: returns the current time; called at every use.
    """

    config: NamedConfig
    serial: str
    key: str
    key_name: str
    not_before: datetime
    not_after: datetime
    graph: Mapping[str, str]
    categories: str
    clock: Clock = utc_now

    @property
    def name(self) -> str:
        """The name of the config."""
        return self.config.name

    def require_time(self) -> None:
        """Check that the config is valid now.

        Raises:
            RefusedConfig: it is not yet valid, or has expired.
        """
        now = self.clock()
        if now < self.not_before:
            raise RefusedConfig(Reason.NOT_YET_VALID, f"{self.name} is valid from {self.not_before:%Y-%m-%d %H:%M} UTC")
        if now >= self.not_after:
            raise RefusedConfig(
                Reason.EXPIRED, f"{self.name} was valid until {self.not_after:%Y-%m-%d %H:%M} UTC: have it signed again"
            )

    def require_graph(self, graph: Mapping[str, str]) -> None:
        """Check that the config was signed for this graph (BLAKE3 digests by file name).

        Raises:
            RefusedConfig: it was signed for another graph.
        """
        if dict(graph) != dict(self.graph):
            raise RefusedConfig(
                Reason.OTHER_BUNDLE,
                f"{self.name} was signed for the graph of another bundle",
            )

    def require_categories(self, digest: str) -> None:
        """Check that the config was signed for this category registry.

        Raises:
            RefusedConfig: it was signed for another registry.
        """
        if digest != self.categories:
            raise RefusedConfig(
                Reason.OTHER_REGISTRY,
                f"{self.name} was signed for other categories (digest {self.categories[:16]}) than the bundle's "
                f"({digest[:16]}): have it signed again",
            )
