"""The profiles and precisions of a bundle, with a note on each precision for the model card (torch-free)."""

from collections.abc import Mapping
from typing import Any, Literal

Profile = Literal["ort", "portable"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
PROFILES = ("ort", "portable")
QUANTISED = ("int8", "int4")
PRECISIONS: dict[str, str] = {
    "fp32": "Weights and cache are float32.",
    "fp16": (
        "Weights and cache are float16; head, gate and rule compute in float32. The CPU provider computes float16 in "
        "float32, so that figures measured on a CPU do not hold on a GPU: measure again there."
    ),
    "int8": (
        "Weights have 8 bits, in blocks of 32 with a float32 scale (MatMulNBits); "
        "head, gate, reward table, cache and the routers of experts are float32."
    ),
    "int4": (
        "Weights have 4 bits, the output embedding 8 bits, in blocks of 32 with a float32 scale (MatMulNBits); "
        "head, gate, reward table, cache and the routers of experts are float32."
    ),
}


def departure_sentence(parity: Mapping[str, Any]) -> str:
    """Return what `parity.json` says of the difference from float32, as one sentence; empty for a float32 bundle.

    Examples:
        >>> departure_sentence({})
        ''
    """
    if "departure_from_fp32" not in parity:
        return ""
    departure = parity["departure_from_fp32"]
    n_routings, n_rerouted = departure.get("n_routings", 0), departure.get("n_rerouted", 0)
    experts = f", {n_rerouted} of {n_routings} choices of experts differ" if n_routings else ""
    logits = f"{departure['max_logit_difference']:.1e} in logits (median {departure['median_logit_difference']:.1e})"
    decisions = f"{departure['n_flips']} of {departure['n_decisions']} decisions differ"
    return (
        f"In {parity['precision']}, largest difference from float32 on {departure['n_positions']} positions of random "
        f"tokens: {logits}, {departure['max_risk_difference']:.1e} in risk; {decisions}{experts}. Other tokens may "
        "differ more: prosocial verify measures the effect on real requests."
    )
