"""The profiles and precisions of a bundle, with a note on each for the model card (torch-free)."""

from typing import Literal

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
        "head, gate, reward table and cache are float32."
    ),
    "int4": (
        "Weights have 4 bits, the output embedding 8 bits, in blocks of 32 with a float32 scale (MatMulNBits); "
        "head, gate, reward table and cache are float32."
    ),
}
