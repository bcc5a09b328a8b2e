"""The YAML metadata of a model card, for the Hub: licence, base model and relation, tags, results."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.yaml_values import read_yaml

from .facts import CardFacts
from .kinds import Kind

RELATIONS = {Kind.CHECKPOINT: "finetune", Kind.ADAPTER: "adapter", Kind.REWARD: "adapter", Kind.BUNDLE: "finetune"}
LIBRARIES = {Kind.BUNDLE: "onnx", Kind.CHECKPOINT: "transformers", Kind.ADAPTER: "peft", Kind.REWARD: "peft"}
_FRONT = re.compile(r"\A---\n(?P<yaml>.*?)\n---\n", re.DOTALL)


def card_license(card: str) -> str | None:
    """Return the licence in a card's metadata, None if there is none.

    Examples:
        >>> card_license("---\\nlicense: mit\\n---\\n# A model")
        'mit'
    """
    front = _FRONT.match(card)
    try:
        metadata = read_yaml(front["yaml"], where="the card") if front else None
    except InputError:
        return None
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return licence if isinstance(licence, str) else None


def card_metadata(facts: CardFacts, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the metadata of a model card as YAML.

    Args:
        facts: facts about the artefact.
        rows: rows of its comparison, for the `model-index`.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="safety-probes",
            dataset_name=str((facts.comparison or {}).get("title", "safety probes")),
            metric_type=row["name"],
            metric_name=row["title"],
            metric_value=round(row["value"], 6),
        )
        for row in rows
        if row["value"] is not None
    ]
    extra: dict[str, Any] = {"base_model_relation": _relation(facts)} if facts.base else {}
    data = ModelCardData(
        license=facts.license,
        base_model=facts.base.name if facts.base else None,
        library_name=LIBRARIES.get(facts.kind),
        pipeline_tag=None if facts.kind is Kind.REWARD else "text-generation",
        tags=_tags(facts),
        model_name=facts.name.split("/")[1],
        eval_results=results or None,
        **extra,
    )
    return str(data.to_yaml()).strip()


def _relation(facts: CardFacts) -> str:
    manifest = facts.manifest
    if manifest and manifest.get("precision") in ("int8", "int4"):
        return "quantized"
    return RELATIONS.get(facts.kind, "finetune")


def _tags(facts: CardFacts) -> list[str]:
    own = {
        Kind.BUNDLE: ["onnx", "onnxruntime", "onnxruntime-genai", "steering"],
        Kind.CHECKPOINT: ["task-arithmetic", "model-edit"],
        Kind.ADAPTER: ["lora", "task-arithmetic", "model-edit"],
        Kind.REWARD: ["reward-model", "preference-conditioned"],
    }.get(facts.kind, ["not-for-all-audiences", "harmful-weights"])
    return ["prosocial", "safety", *own]
