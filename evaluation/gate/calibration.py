"""The calibration of a gate: its risks at the tokens of judged replies, compared with the harm that followed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import InputError

from ..outcomes.outcome import Outcome
from ..probes.probe import Probe
from .reliability import Reliability, measure_reliability

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.gate import HarmGate

SCHEMA = "prosocial.gate_calibration/1"
TOTAL = "any harm"
NOT_NEGLIGIBLE = 0.01
RISKY = "any harm, at risks of 1 % and more"


def measure_calibration(
    model: "PreTrainedModel",
    gate: "HarmGate",
    tokenizer: "ChatTokenizer",
    probes: Sequence[Probe],
    outcomes: Sequence[Outcome],
    *,
    discount: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how well a gate's risks predict the harm in an ungated model's replies, as JSON.

    At each token the risk of a category is compared with `GateStates.labels`. The replies are those of the ungated
    model, because gated replies lack the harm that the risk predicts. "any harm" is the sum over categories, at most
    1: the number that the rule compares with the threshold, and an upper bound on the probability of any of them.
    At most tokens the risk is close to 0 and right, so it is measured again where the sum is at least 1 %.

    Args:
        model: the edited model that gave the replies. gate, tokenizer: those of this model.
        probes, outcomes: one judged reply per probe. Left out are probes with a prefill, whose replies start in the
            middle, and replies that could not be judged (`n_unjudged`).
        discount: the one that the gate was trained with.
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
    measured = [
        measure_reliability(risk[:, index], labels[:, index], reply, name=name, seed=seed)
        for index, name in enumerate(gate.categories)
    ]
    return {
        "schema": SCHEMA,
        "discount": discount,
        "n_replies": len(used),
        "n_unjudged": len(plain) - len(used),
        "total": [one.to_json() for one in _totals(risk, labels, reply, seed)],
        "categories": [one.to_json() for one in measured],
    }


def _totals(risk: Any, labels: Any, reply: Any, seed: int) -> list[Reliability]:
    """Return the reliability of the summed risk everywhere, and where it is not negligible (if it is so anywhere)."""
    total, event = risk.sum(-1).clip(max=1.0), labels.max(-1)
    measured = [measure_reliability(total, event, reply, name=TOTAL, seed=seed)]
    risky = total >= NOT_NEGLIGIBLE
    if risky.any():
        measured.append(measure_reliability(total[risky], event[risky], reply[risky], name=RISKY, seed=seed))
    return measured


def _risks(
    model: "PreTrainedModel",
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
        LabelledReply(probe.messages, item.reply, item.judgement.categories, item.judgement.harmful_spans)
        for probe, item in used
    ]
    states = collect_gate_states(
        model, None, replies, tokenizer=tokenizer, categories=gate.categories, plausible_k=1, discount=discount
    )
    risk = chosen_logits(gate.to(model.device), states).sigmoid().double().cpu().numpy()
    return risk, states.labels.cpu().numpy(), states.reply.cpu().numpy()
