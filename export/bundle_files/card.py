"""The README of a bundle: what it is and how to run it. Publication replaces it by a longer model card."""

from collections.abc import Sequence

from prosocial.core.chat import ChatTokenizer

from .precision import PRECISIONS, Precision

HEADER = """---
library_name: onnx
pipeline_tag: text-generation
tags: [onnx, prosocial]
base_model_relation: finetune
---

# A {kind} bundle

Made with `prosocial export`, graph profile `{profile}`. `manifest.json` lists the digest of every file, `parity.json`
reports the difference between the graph and PyTorch.

Precision `{precision}`: {note}{measured}

```
prosocial generate THIS_FOLDER "How do I say no to a friend?"
```
"""

STEERED = """
The gate and the preference head are part of the graph: `logits` is minus infinity outside the safe set. The inputs
`preference`, `allowed`, `harm_threshold` and `reward_scale` are optional; their defaults and ceilings are in
`decoding.json`. Anybody with write access to the file can change the graph: check the manifest, and the signature if
there is one.

Clients of the raw graph: ONNX Runtime accepts the four inputs directly. onnxruntime-genai ignores `set_model_input` for
inputs that have a default; use the adapters in `presets/` instead, one per safety config of `decoding.json`, and put
the text of the config into the system prompt. onnxruntime-genai also loads libraries that `genai_config.json` names:
check the manifest first.

```python
model = onnxruntime_genai.Model("THIS_FOLDER")
adapters = onnxruntime_genai.Adapters(model)
adapters.load("THIS_FOLDER/presets/NAME.onnx_adapter", "NAME")
generator.set_active_adapter(adapters, "NAME")  # before append_tokens
```
"""

PLAIN = """
Only the language model, with all logits: no gate and no preference head.
"""


NO_SYSTEM = """
The chat template has no place for a system message. A system message at the start of a conversation, and the text of a
safety config, therefore go into the first user message, before its text and a blank line.
"""

MARKERS = """
The role markers of the chat template are plain text: {markers}. Token ids cannot keep them apart from what users type.
Where one would arise from a message, in any case and with any white space, a backslash is put into it. Clients other
than prosocial must do the same.
"""


def bundle_card(*, kind: str, profile: str, precision: Precision, measured: str = "", notes: Sequence[str] = ()) -> str:
    """Return the text of `README.md` for a bundle of this kind, profile and precision.

    Args:
        kind: "steered" or "plain".
        profile: profile of the graph.
        precision: precision of the bundle.
        measured: sentence on the difference from float32.
        notes: further paragraphs.
    """
    note, measured = PRECISIONS[precision], measured and f"\n\n{measured}"
    header = HEADER.format(kind=kind, profile=profile, precision=precision, note=note, measured=measured)
    return "".join([header, STEERED if kind == "steered" else PLAIN, *notes])


def prompt_notes(tokenizer: ChatTokenizer) -> list[str]:
    """Return what a reader must know of how a tokenizer makes prompts; nothing if its template has control tokens for
    each role and a place for a system message."""
    notes = [] if tokenizer.takes_system else [NO_SYSTEM]
    markers = ", ".join(f"`{marker}`" for marker in tokenizer.role_markers)
    return [*notes, MARKERS.format(markers=markers)] if markers else notes
