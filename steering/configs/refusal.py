"""The error for a refused external safety config, with its reason (torch-free)."""

from enum import StrEnum

from prosocial.core.errors import InputError


class Reason(StrEnum):
    """Why a config was refused, in the words that logs use."""

    UNSIGNED = "unsigned"
    NOT_TRUSTED = "not signed by a trusted key, or changed"
    MALFORMED = "malformed"
    REVOKED_KEY = "revoked key"
    REVOKED_SERIAL = "revoked serial"
    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    OTHER_BUNDLE = "signed for another bundle"
    OTHER_REGISTRY = "signed for other categories"
    BEYOND_CEILING = "beyond the bundle's ceiling"
    BEYOND_SCOPE = "beyond the key's scope"


class RefusedConfig(InputError):  # noqa: N818 - "refused config" is the established term
    """A safety config was refused.

    Attributes:
        reason: the category of the refusal, for logs.
        told: the message without the reason.
    """

    def __init__(self, reason: Reason, told: str) -> None:
        super().__init__(f"safety config refused ({reason}): {told}")
        self.reason, self.told = reason, told
