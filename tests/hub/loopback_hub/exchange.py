"""A request to the loopback Hub, and its answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import LoopbackHub


@dataclass(frozen=True)
class Answer:
    """A reply: its body is JSON, or bytes that are sent as they are."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Request:
    """What a route is given.

    Attributes:
        hub: the one that was asked. headers: by name in small letters. body: the bytes.
        is_corrupt: what this request stores or sends should be another by one bit.
    """

    hub: "LoopbackHub"
    headers: dict[str, str]
    body: bytes
    is_corrupt: bool = False

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def is_known(self) -> bool:
        """Whether it carries the token that the Hub knows."""
        return self.headers.get("authorization", "") == f"Bearer {self.hub.token}"

    def altered(self, content: bytes) -> bytes:
        """Return what is stored or sent in place of these bytes."""
        return content[:-1] + bytes([content[-1] ^ 1]) if content and self.is_corrupt else content


Route = Callable[[Request], Answer]
