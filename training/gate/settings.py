"""How a gate is made from labelled replies: its training, its scaling and its on-policy replies (torch-free)."""

from typing import Self

from pydantic import Field

from prosocial.core.settings import Count, NonNegative, Positive, Settings


class GateTraining(Settings):
    """How to train a gate.

    Attributes:
        rank: R of the gate.
        steps: optimiser steps.
        batch_size: positions per step.
        learning_rate: the highest of the one-cycle schedule.
        weight_decay: of AdamW.
        discount: factor of the label per token before a harm, in [0, 1]; see `GateStates.labels`. Above 0 the gate
            also learns to turn away before a harm, not only at it.
        dense_weight: weight of `dense_loss` beside `label_loss`.
        n_dense: plausible tokens drawn per position for `dense_loss`.
        substitution_weight: weight of `substitution_loss`. Use it where spans mark harmful words; in replies labelled
            as a whole nearly every token would count as harmful.
    """

    rank: Count = 16
    steps: Count = 800
    batch_size: int = Field(default=1024, ge=2)
    learning_rate: Positive = 1e-2
    weight_decay: NonNegative = 1e-3
    discount: float = Field(default=0.0, ge=0.0, le=1.0)
    dense_weight: NonNegative = 0.1
    n_dense: Count = 16
    substitution_weight: NonNegative = 0.0


class OnPolicySettings(Settings):
    """Replies that the edited model gives under a first draft of the gate, labelled and trained on in their turn.

    Attributes:
        count: how many replies to draw; 0: none, and no draft is trained.
        threshold: of the draft's gate. A high one lets through what the draft is wrong about.
        near: a harmless reply is trained on if the risk of one of its tokens is at least `near * threshold`.
    """

    count: int = Field(default=0, ge=0)
    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    near: float = Field(default=0.5, ge=0.0, le=1.0)


class GateSettings(GateTraining):
    """How to train, scale and harden a gate.

    Attributes:
        held_out_share: share of the replies, the last ones, that the scaling is fitted to; 0: no scaling. They should
            be replies of the edited model.
        on_policy: on-policy replies.
    """

    held_out_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    on_policy: OnPolicySettings = OnPolicySettings()

    def draft(self) -> Self:
        """Return the same with half the steps."""
        return self.model_copy(update={"steps": max(1, self.steps // 2)})

    def with_on_policy_count(self, count: int) -> Self:
        """Return the same with another number of on-policy replies."""
        return self.model_copy(update={"on_policy": self.on_policy.model_copy(update={"count": count})})
