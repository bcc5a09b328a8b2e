"""Export: the steered reference model, its ONNX graph, the bundle and the torch-free runtime."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import Bundle as Bundle
    from .bundling import export_bundle as export_bundle
    from .configs.safety_config import SafetyConfig as SafetyConfig
    from .decoding import DecodingConfig as DecodingConfig
    from .decoding import preference_vector as preference_vector
    from .decoding_loop import generate as generate
    from .draft import GateEvent as GateEvent
    from .manifest import check_manifest as check_manifest
    from .manifest import write_manifest as write_manifest
    from .reply import Reply as Reply
    from .sampling import Sampling as Sampling
    from .steered import SteeredModel as SteeredModel
    from .steered import assemble_steered as assemble_steered
    from .steering import Steering as Steering
    from .streaming import ReplyStream as ReplyStream
    from .streaming import stream as stream
    from .torch_engine import PlainEngine as PlainEngine
    from .torch_engine import SteeredEngine as SteeredEngine

_HOME = {
    "Bundle": ".bundle",
    "DecodingConfig": ".decoding",
    "GateEvent": ".draft",
    "PlainEngine": ".torch_engine",
    "Reply": ".reply",
    "ReplyStream": ".streaming",
    "SafetyConfig": ".configs.safety_config",
    "Sampling": ".sampling",
    "SteeredEngine": ".torch_engine",
    "SteeredModel": ".steered",
    "Steering": ".steering",
    "assemble_steered": ".steered",
    "check_manifest": ".manifest",
    "export_bundle": ".bundling",
    "generate": ".decoding_loop",
    "preference_vector": ".decoding",
    "stream": ".streaming",
    "write_manifest": ".manifest",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
