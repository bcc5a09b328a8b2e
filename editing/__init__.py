"""Everything that makes or changes weights: checkpoints, harm vectors, edits, the compact head, the gate."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat import ChatTokenizer as ChatTokenizer
    from .checkpoints.folder import Checkpoint as Checkpoint
    from .checkpoints.model import load_model as load_model
    from .edits.apply import apply_edit as apply_edit
    from .edits.plan import EditPlan as EditPlan
    from .edits.plan import plan_edit as plan_edit
    from .edits.record import EditRecord as EditRecord
    from .errors import ArtefactError as ArtefactError
    from .errors import FingerprintError as FingerprintError
    from .errors import InputError as InputError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import ProsocialError as ProsocialError
    from .errors import StorageError as StorageError
    from .errors import UnknownNameError as UnknownNameError
    from .gate.module import HarmGate as HarmGate
    from .head.module import CompactHead as CompactHead
    from .noise import GumbelNoise as GumbelNoise
    from .protocols import Judge as Judge
    from .protocols import Judgement as Judgement
    from .protocols import Message as Message
    from .vectors.adapter_source import vector_from_adapter as vector_from_adapter
    from .vectors.checkpoint_source import vector_from_checkpoints as vector_from_checkpoints
    from .vectors.vector import HarmVector as HarmVector

_HOMES = {
    "ArtefactError": "errors",
    "ChatTokenizer": "chat",
    "Checkpoint": "checkpoints.folder",
    "CompactHead": "head.module",
    "EditPlan": "edits.plan",
    "EditRecord": "edits.record",
    "FingerprintError": "errors",
    "GumbelNoise": "noise",
    "HarmGate": "gate.module",
    "HarmVector": "vectors.vector",
    "InputError": "errors",
    "Judge": "protocols",
    "Judgement": "protocols",
    "Message": "protocols",
    "MissingExtraError": "errors",
    "ProsocialError": "errors",
    "StorageError": "errors",
    "UnknownNameError": "errors",
    "apply_edit": "edits.apply",
    "load_model": "checkpoints.model",
    "plan_edit": "edits.plan",
    "vector_from_adapter": "vectors.adapter_source",
    "vector_from_checkpoints": "vectors.checkpoint_source",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
