"""The calibration of a gate: its risks at the tokens of judged replies against what those replies went on to do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import InputError

from ..outcomes.outcome import Outcome
from ..probes.probe import Probe
from .reliability import Reliability, measure_reliability

if TYPE_CHECKING:
    from torch import nn

    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.gate import HarmGate

SCHEMA = "prosocial.gate_calibration/1"
TOTAL = "any harm"
NOT_NEGLIGIBLE = 0.01
RISKY = "any harm, at risks of 1 % and more"


def measure_calibration(
    model: "nn.Module",
    gate: "HarmGate",
    tokenizer: "ChatTokenizer",
    probes: Sequence[Probe],
    outcomes: Sequence[Outcome],
    *,
    discount: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how well a gate's risks predict what an ungated model's replies go on to do, as JSON.

    The event of category c at a token is that of `GateStates.labels`, for replies of the model itself: gated replies
    would hide what the risk warns of. "any harm" is the sum over categories, at most 1, which the rule compares with
    the threshold; it bounds the chance of any of them. Most tokens carry no risk at all, which every gate gets right:
    so it is told again for the positions where the sum is at least 1 %.

    Args:
        model: the edited model that gave the replies. gate, tokenizer: its own.
        probes, outcomes: one judged reply per probe; probes with a prefill are left out, their replies begin elsewhere,
            and so are replies that could not be judged (`n_unjudged`).
        discount: that the gate was trained with.
        seed: of the bootstrap.

    Raises:
        InputError: no probe is left, or not one reply for each.
    """
    if len(probes) != len(outcomes):
        raise InputError(f"each probe needs one reply, found {len(probes)} probes and {len(outcomes)} replies")
    plain = [(probe, outcome) for probe, outcome in zip(probes, outcomes, strict=True) if not probe.prefill]
    used = [(probe, outcome) for probe, outcome in plain if outcome.leak is not None]
    if not used:
        raise InputError(
            f"calibration needs judged replies to probes without a prefill: there are none among {len(plain)} such "
            "replies; judge them again"
        )
    risk, labels, reply = _risks(model, gate, tokenizer, used, discount)
    found = [
        measure_reliability(risk[:, index], labels[:, index], reply, name=name, seed=seed)
        for index, name in enumerate(gate.categories)
    ]
    return {
        "schema": SCHEMA,
        "discount": discount,
        "n_replies": len(used),
        "n_unjudged": len(plain) - len(used),
        "total": [one.to_json() for one in _totals(risk, labels, reply, seed)],
        "categories": [one.to_json() for one in found],
    }


def _totals(risk: Any, labels: Any, reply: Any, seed: int) -> list[Reliability]:
    """Return the reliability of the summed risk everywhere, and where it is not negligible (if it is so anywhere)."""
    total, event = risk.sum(-1).clip(max=1.0), labels.max(-1)
    found = [measure_reliability(total, event, reply, name=TOTAL, seed=seed)]
    risky = total >= NOT_NEGLIGIBLE
    if risky.any():
        found.append(measure_reliability(total[risky], event[risky], reply[risky], name=RISKY, seed=seed))
    return found


def _risks(
    model: "nn.Module",
    gate: "HarmGate",
    tokenizer: "ChatTokenizer",
    used: Sequence[tuple[Probe, Outcome]],
    discount: float,
) -> tuple[Any, Any, Any]:
    """Return risks [N, C], labels [N, C] and the reply [N] of every reply position, as arrays."""
    from prosocial.training.gate.replies import LabelledReply
    from prosocial.training.gate.scaling import chosen_logits
    from prosocial.training.gate.states import collect_gate_states

    replies = [
        LabelledReply(probe.messages, found.reply, found.judgement.categories, found.judgement.harmful_spans)
        for probe, found in used
    ]
    states = collect_gate_states(
        model, None, replies, tokenizer=tokenizer, categories=gate.categories, plausible_k=1, discount=discount
    )
    return chosen_logits(gate, states).sigmoid().double().numpy(), states.labels.numpy(), states.reply.numpy()
