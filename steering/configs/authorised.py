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
    """A verified safety config, valid for one bundle and a limited time; only `authorise` should create one.

    Attributes:
        config: the signed config.
        serial: serial number of the signed statement.
        key: digest of the signer's public key.
        key_name: name of the signer's key.
        not_before: start of validity.
        not_after: end of validity (exclusive).
        files: BLAKE3 digests, by file name, of the bundle that the config was signed for.
        categories: digest of the category registry that the config was signed for.
        clock: returns the current time; called at every use.
        binds_all: whether `files` are all files of the bundle; a config of version 0.1.0 binds the graph's alone.
    """

    config: NamedConfig
    serial: str
    key: str
    key_name: str
    not_before: datetime
    not_after: datetime
    files: Mapping[str, str]
    categories: str
    clock: Clock = utc_now
    binds_all: bool = True

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

    def require_bundle(self, files: Mapping[str, str]) -> None:
        """Check that the config was signed for this bundle (BLAKE3 digests of all files by name).

        Raises:
            RefusedConfig: it was signed for another bundle.
        """
        bound = files if self.binds_all else {name: files.get(name) for name in self.files}
        if dict(bound) != dict(self.files):
            raise RefusedConfig(Reason.OTHER_BUNDLE, f"{self.name} was signed for another bundle")

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
