"""The precisions of a bundle: which there are, and what a reader must know of each (torch-free)."""

from typing import Literal

Precision = Literal["fp32", "fp16", "int8", "int4"]
QUANTISED = ("int8", "int4")
PRECISIONS: dict[str, str] = {
    "fp32": "Weights and cache are float32.",
    "fp16": (
        "Weights and cache are float16; head, gate and rule compute in float32. The CPU provider computes float16 by "
        "way of float32, so figures measured on a CPU are not the numerics that a GPU deploys: measure again there."
    ),
    "int8": (
        "Weights are 8 bits, blocks of 32 with one float32 scale (MatMulNBits); head, gate, reward table and cache are "
        "float32."
    ),
    "int4": (
        "Weights are 4 bits, those of the output embedding 8 bits, blocks of 32 with one float32 scale (MatMulNBits); "
        "head, gate, reward table and cache are float32."
    ),
}
