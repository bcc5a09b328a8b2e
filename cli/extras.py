"""Which extra brings which module: so that a missing one is one line with what to install."""

from prosocial.core.errors import MissingExtraError

EXTRA_OF = {
    "accelerate": "train",
    "datasets": "train",
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
    "trl": "train",
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return the clear form of an import that failed for want of an extra, None where no extra would help."""
    package = (error.name or "").partition(".")[0]
    return MissingExtraError(package, EXTRA_OF[package]) if package in EXTRA_OF else None
