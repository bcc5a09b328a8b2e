"""Why a safety config from outside is not followed: one reason, one line (torch-free)."""

from enum import StrEnum

from prosocial.core.errors import InputError


class Reason(StrEnum):
    """What was wrong, as logs name it."""

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


class RefusedConfig(InputError):  # noqa: N818 - the field says a config is refused
    """A safety config that is not followed.

    Attributes:
        reason: the kind, for logs; the message says it in full. told: the message without the kind.
    """

    def __init__(self, reason: Reason, told: str) -> None:
        super().__init__(f"safety config refused ({reason}): {told}")
        self.reason, self.told = reason, told
