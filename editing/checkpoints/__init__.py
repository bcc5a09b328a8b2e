"""Checkpoints: folders of weights, opened from their headers, loaded as models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .description import describe_checkpoint
    from .digests import TensorDigest, combine, digest_tensor
    from .folder import Checkpoint
    from .header import Header, TensorInfo, read_header
    from .model import load_model
    from .modules import linear_modules
    from .quantised import quantisation_evidence, refuse_quantised
    from .source import open_headers, resolve_model

_HOMES = {
    "Checkpoint": "folder",
    "Header": "header",
    "TensorDigest": "digests",
    "TensorInfo": "header",
    "combine": "digests",
    "describe_checkpoint": "description",
    "digest_tensor": "digests",
    "linear_modules": "modules",
    "load_model": "model",
    "open_headers": "source",
    "quantisation_evidence": "quantised",
    "read_header": "header",
    "refuse_quantised": "quantised",
    "resolve_model": "source",
}
__all__ = [
    "Checkpoint",
    "Header",
    "TensorDigest",
    "TensorInfo",
    "combine",
    "describe_checkpoint",
    "digest_tensor",
    "linear_modules",
    "load_model",
    "open_headers",
    "quantisation_evidence",
    "read_header",
    "refuse_quantised",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
