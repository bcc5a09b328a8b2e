"""A trained and scaled gate, and what is recorded beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.steering.gate import HarmGate

from .scaling import PlattScaling
from .settings import GateSettings


@dataclass(frozen=True)
class TrainedGate:
    """What `train_gate_on_replies` returns.

    Attributes:
        gate: scaled if the scaling helps.
        settings: how it was trained.
        n_replies: labelled replies given.
        n_positions: token positions trained on.
        n_on_policy: on-policy replies among them.
        n_unjudged: on-policy replies left out because the judge could not judge them.
        scaling: None without held-out replies.
    """

    gate: HarmGate
    settings: GateSettings
    n_replies: int
    n_positions: int
    n_on_policy: int
    n_unjudged: int
    scaling: PlattScaling | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as it stands under `extra` in `gate_config.json`."""
        counts = {name: getattr(self, name) for name in ("n_replies", "n_positions", "n_on_policy", "n_unjudged")}
        scaling = None if self.scaling is None else self.scaling.to_json()
        return {"training": self.settings.model_dump(mode="json")} | counts | {"scaling": scaling}

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str) -> None:
        """Write the gate and its record into `folder`, creating it if it does not exist."""
        self.gate.save(folder, checkpoint_fingerprint=checkpoint_fingerprint, extra=self.to_json())

    @property
    def summary(self) -> str:
        """One line for people."""
        text = f"rank {self.gate.rank}, {len(self.gate.categories)} categories, {self.n_positions} positions"
        if self.settings.on_policy.count:
            text += f" with {self.n_on_policy} on-policy replies{left_out(self.n_unjudged)}"
        return text + (", scaled" if self.scaling is not None and self.scaling.helps else "")


def left_out(n_unjudged: int) -> str:
    """Return the part of a line that says how many replies were left out because they could not be judged."""
    return f", {n_unjudged} more could not be judged and are left out" if n_unjudged else ""
