"""The fields of parity and audit reports that a publication and its card rely on, validated."""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prosocial.core.errors import ArtefactError

Report = TypeVar("Report", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Gate(_Part):
    """One check of a parity report.

    Attributes:
        title: what was measured.
        observed: the measured value; None if it is not a number.
        threshold: the largest value that passes; None if there is none.
        verdict: the verdict of this check.
    """

    title: str
    observed: float | None
    threshold: float | None
    verdict: Literal["pass", "fail", "ambiguous"]


class ParitySubject(_Part):
    """What a parity report is about: the bundle's manifest and the weights of the reference, by digest."""

    manifest_sha256: str = ""
    reference_fingerprint: str = ""


class SafeSet(_Part):
    """The number of decisions that only one side calls safe."""

    n_flips: int = Field(ge=0)


class Parity(_Part):
    """A parity report: it has compared at least one position, and its verdict is the worst of its checks."""

    verdict: Literal["pass", "fail", "ambiguous"]
    subject: ParitySubject
    gates: list[Gate] = Field(min_length=1)
    n_prompts: int = Field(ge=1)
    n_positions: int = Field(ge=1)
    safe_set: SafeSet

    def require_consistent(self, path: Path) -> None:
        """Refuse a report that passes although one of its checks did not.

        Raises:
            ArtefactError: it does.
        """
        others = [gate.title for gate in self.gates if gate.verdict != "pass"]
        if self.verdict == "pass" and others:
            raise ArtefactError(
                f"{path} should pass only if all its checks do, {others[0]!r:.60} did not: verify again"
            )


class Level(_Part):
    """One level of an audit."""

    level: int
    verdict: str = Field(pattern=r"^[a-z ]{1,40}$")


class Audit(_Part):
    """An audit report: the weights that it is about, its verdict and its levels."""

    verdict: str
    fingerprint: str
    levels: list[Level] = Field(min_length=1)


def parse_report(model: type[Report], report: dict[str, Any], *, path: Path, command: str) -> Report:
    """Validate the fields of a report.

    Raises:
        ArtefactError: a field is missing or has another type (the message names the field).
    """
    try:
        return model.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtefactError(
            f"{path} should be as {command} writes it, its {where} is not ({first['msg']}): run the command again"
        ) from None
