"""The README of a bundle: what it is and how to run it. Publishing writes a fuller model card over it."""

from .precision import PRECISIONS, Precision

HEADER = """---
library_name: onnx
pipeline_tag: text-generation
tags: [onnx, prosocial]
base_model_relation: finetune
---

# A {kind} bundle

Made with `prosocial export`, graph profile `{profile}`. `manifest.json` holds the digest of every file, `parity.json`
how far the graph is from PyTorch.

Precision `{precision}`: {note}

```
prosocial generate THIS_FOLDER "How do I say no to a friend?"
```
"""

STEERED = """
The gate and the preference head are part of the graph: `logits` is minus infinity outside the safe set. The inputs
`preference`, `allowed`, `harm_threshold` and `reward_scale` are optional, their defaults and ceilings are in
`decoding.json`. Whoever holds the file can rewrite the graph: check the manifest, and a signature if there is one.

Clients of the raw graph: ONNX Runtime takes the four inputs as they are. onnxruntime-genai ignores `set_model_input` on
inputs that have a default; it honours the adapters in `presets/`, one for each safety config of `decoding.json`, whose
text goes into the system prompt. It also opens libraries that `genai_config.json` names: check the manifest first.

```python
model = onnxruntime_genai.Model("THIS_FOLDER")
adapters = onnxruntime_genai.Adapters(model)
adapters.load("THIS_FOLDER/presets/NAME.onnx_adapter", "NAME")
generator.set_active_adapter(adapters, "NAME")  # before append_tokens
```
"""

PLAIN = """
The language model alone, with full logits: no gate and no preference head.
"""


def bundle_card(*, kind: str, profile: str, precision: Precision) -> str:
    """Return the text of `README.md` for a bundle of that kind, profile and precision."""
    header = HEADER.format(kind=kind, profile=profile, precision=precision, note=PRECISIONS[precision])
    return header + (STEERED if kind == "steered" else PLAIN)
