"""Maps modules to the extra that installs them, so that a missing module gives a one-line instruction."""

from prosocial.core.errors import MissingExtraError

EXTRA_OF = {
    "accelerate": "train",
    "clarabel": "cagrad",
    "cvxpy": "cagrad",
    "datasets": "train",
    "gguf": "gguf",
    "inspect_ai": "inspect",
    "onnx": "edit",
    "onnx_ir": "edit",
    "onnxruntime": "cpu",
    "onnxscript": "edit",
    "optuna": "train",
    "peft": "edit",
    "ray": "ray",
    "sklearn": "train",
    "torch": "edit",
    "torchjd": "train",
    "transformers": "edit",
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return an error that names the extra to install, or None if no extra provides the module."""
    package = (error.name or "").partition(".")[0]
    return MissingExtraError(package, EXTRA_OF[package]) if package in EXTRA_OF else None
