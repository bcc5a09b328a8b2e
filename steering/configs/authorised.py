"""A safety config from outside the bundle, after somebody whom the operator trusts has vouched for it (torch-free)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from .refusal import Reason, RefusedConfig
from .safety_config import NamedConfig

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class AuthorisedConfig:
    """What `authorise` gives, and nothing else should make: one config, for one graph, for a while.

    Attributes:
        config: what was signed. serial: of the signed statement. key, key_name: the signer's digest and name.
        not_before, not_after: when it holds; the end is excluded.
        graph: BLAKE3 by file of the graph that it was signed for. categories: digest of the category registry.
        clock: tells the time; it is asked at every use.
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
        """The config's name."""
        return self.config.name

    def require_time(self) -> None:
        """Check that it holds now.

        Raises:
            RefusedConfig: not yet, or not any more.
        """
        now = self.clock()
        if now < self.not_before:
            raise RefusedConfig(Reason.NOT_YET_VALID, f"{self.name} holds from {self.not_before:%Y-%m-%d %H:%M} UTC on")
        if now >= self.not_after:
            raise RefusedConfig(
                Reason.EXPIRED, f"{self.name} held until {self.not_after:%Y-%m-%d %H:%M} UTC: have it signed anew"
            )

    def require_graph(self, graph: Mapping[str, str]) -> None:
        """Check that it was signed for this graph (BLAKE3 by file).

        Raises:
            RefusedConfig: for another one.
        """
        if dict(graph) != dict(self.graph):
            raise RefusedConfig(Reason.OTHER_BUNDLE, f"{self.name} was signed for the graph of another bundle")

    def require_categories(self, digest: str) -> None:
        """Check that it was signed for this category registry.

        Raises:
            RefusedConfig: for another one.
        """
        if digest != self.categories:
            raise RefusedConfig(
                Reason.OTHER_REGISTRY,
                f"{self.name} was signed for categories with digest {self.categories[:16]}, the bundle's are "
                f"{digest[:16]}: have it signed anew",
            )
