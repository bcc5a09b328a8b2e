"""The settings that determine the trials of a sweep: equal settings and seed give equal trials."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, sha256_file
from prosocial.core.placement import REFERENCE, Placement
from prosocial.core.protocols import Judge
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.vectors.adapter_config import WEIGHTS_NAME

from ..probes.probe import Probe
from .space import SearchSpace
from .trials import Trial


@dataclass(frozen=True)
class Limits:
    """Limits on the cost of a trial.

    Attributes:
        max_kl: first-token KL in nats above which a trial is stopped before sampling replies.
        max_utility_loss: largest acceptable loss of utility of the best trial, such as 0.03.

    Raises:
        InputError: a limit is out of range.
    """

    max_kl: float = 1.0
    max_utility_loss: float = 0.03

    def __post_init__(self) -> None:
        if not self.max_kl > 0 or not 0 <= self.max_utility_loss <= 1:
            raise InputError(
                f"the KL limit should be above 0 and the utility loss in [0, 1], found {self.max_kl} and "
                f"{self.max_utility_loss}"
            )

    def violations(self, trial: Trial) -> dict[str, float]:
        """Return how far a trial exceeds each limit, by name; 0 or less if it is within the limit."""
        lost = 0.0 if trial.utility_lost is None else trial.utility_lost.estimate - self.max_utility_loss
        return {"kl": trial.kl - self.max_kl, "utility": lost}


def sweep_settings(
    base: Path,
    harmful: Sequence[Path],
    space: SearchSpace,
    probes: Sequence[Probe],
    judge: Judge,
    limits: Limits,
    answering: Mapping[str, Any],
    seed: int,
    placement: Placement = REFERENCE,
) -> dict[str, Any]:
    """Return the settings as plain JSON, with digests instead of paths."""
    digest = hashlib.sha256("".join(canonical_json(probe.to_json()) for probe in probes).encode()).hexdigest()
    return {
        "base": Checkpoint.open(base).fingerprint(),
        "harmful": [_digest(folder) for folder in harmful],
        "space": space.to_json(),
        "probes": digest,
        "n_probes": len(probes),
        "judge": f"{judge.name} {judge.version}",
        "max_kl": limits.max_kl,
        "max_utility_loss": limits.max_utility_loss,
        "answering": dict(answering),
        "seed": seed,
        **placement.stamp(),
    }


def _digest(harmful: Path) -> str:
    """Return the digest of an adapter's weights, or a checkpoint's fingerprint."""
    weights = harmful / WEIGHTS_NAME
    return sha256_file(weights) if weights.is_file() else Checkpoint.open(harmful).fingerprint()
