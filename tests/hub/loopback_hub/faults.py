"""What can go wrong at a request: which one, and how."""

from dataclasses import dataclass, field
from typing import Literal, Self

Kind = Literal["refuse", "drop", "lose", "cut", "corrupt"]


@dataclass
class Fault:
    """Something that goes wrong at a kind of request (`prosocial.TESTS.loopback_hub.routes.ROUTES` names them).

    Attributes:
        step: the name of the request, such as `commit`; `*` for any.
        kind: refuse: answered with `status`, nothing done. drop: the connection ends, nothing done. lose: done, and
            the connection ends before the answer. cut: the answer ends half-way. corrupt: a byte of what is stored or
            sent is another.
        status, headers: of a refusal. skip: how many such requests pass first.
        times: how often it goes wrong; None: always.
    """

    step: str
    kind: Kind = "refuse"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    skip: int = 0
    times: int | None = None

    @classmethod
    def refused(cls, step: str, status: int, *, error_code: str = "", times: int | None = None) -> Self:
        """Return a refusal with that status; `error_code` is what the client tells missing things apart by."""
        return cls(step, "refuse", status, {"X-Error-Code": error_code} if error_code else {}, times=times)

    @classmethod
    def limited(cls, step: str, *, retry_after: int, times: int | None = 1) -> Self:
        """Return a rate limit: 429 with `Retry-After` in seconds."""
        return cls(step, "refuse", 429, {"Retry-After": str(retry_after)}, times=times)

    @classmethod
    def of(cls, step: str, kind: Kind, *, times: int | None = None) -> Self:
        """Return a fault that is no refusal."""
        return cls(step, kind, times=times)

    def strikes(self, step: str) -> bool:
        """Whether it strikes this request; counts it."""
        if self.step not in (step, "*") or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
