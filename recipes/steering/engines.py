"""The steered model of a run, whole or in part, as an engine that draws replies."""

from typing import Any

from ..workflow.stage import StageContext


def decoding_config(parameters: Any, threshold: float, ceiling: float) -> Any:
    """Return the decoding config of a recipe's `decoding` part, its names and the chosen threshold."""
    from prosocial.steering.decoding.config import DecodingConfig, ReplySettings

    keys = ("attributes", "categories", "plausible_k", "beta", "fallback", *ReplySettings.model_fields)
    return DecodingConfig.parse(
        {key: parameters[key] for key in (*keys, "allowed_ceiling", "safety_configs")}
        | {"harm_threshold": threshold, "threshold_ceiling": ceiling},
        source="the recipe's decoding with the chosen threshold",
    )


def steered_engine(context: StageContext, *, harm_threshold: float) -> tuple[Any, Any]:
    """Return an engine and tokenizer of the steered model in memory, with the threshold's ceiling as given."""
    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead
    from prosocial.steering.steered_model import SteeredModel
    from prosocial.steering.torch_engine import SteeredEngine

    from .models import open_model

    edited, parameters = context.inputs["edited"], context.parameters
    names = {"attributes": parameters["attributes"], "categories": parameters["categories"]}
    config = decoding_config(parameters["decoding"] | names, harm_threshold, harm_threshold)
    model = open_model(edited)  # float32, as in the steered model and the bundle
    tokenizer = ChatTokenizer(edited)
    head, gate = CompactHead.load(context.inputs["head"]), HarmGate.load(context.inputs["gate"])
    steered = SteeredModel(model, head, gate, config, end_ids=tokenizer.end_ids)
    return SteeredEngine(steered.eval()), tokenizer


def gated_engine(model: Any, gate: Any, tokenizer: Any, plausible_k: int, threshold: float) -> Any:
    """Return an engine of a model under a gate alone: a head that shifts nothing, no ceiling below the threshold."""
    from prosocial.steering.head import CompactHead

    head = CompactHead(["none"], gate.hidden_size, rank=1)
    return _engine(model, head, gate, tokenizer, plausible_k=plausible_k, threshold=threshold, reward_scale=0.0)


def ungated_engine(model: Any, head: Any, tokenizer: Any, plausible_k: int, beta: float) -> Any:
    """Return an engine of a model under a head alone, for training and measuring the head: a gate at 1 lets all by."""
    from prosocial.steering.gate import HarmGate

    gate = HarmGate(["other"], model.get_output_embeddings().weight.shape[0], head.hidden_size, rank=1)
    return _engine(model, head, gate, tokenizer, plausible_k=plausible_k, threshold=1.0, beta=beta)


def _engine(model: Any, head: Any, gate: Any, tokenizer: Any, *, threshold: float, **settings: Any) -> Any:
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.steered_model import SteeredModel
    from prosocial.steering.torch_engine import SteeredEngine

    config = DecodingConfig(
        attributes=list(head.attributes),
        categories=list(gate.categories),
        harm_threshold=threshold,
        threshold_ceiling=threshold,
        **settings,
    )
    return SteeredEngine(SteeredModel(model, head, gate, config, end_ids=tokenizer.end_ids).eval())
