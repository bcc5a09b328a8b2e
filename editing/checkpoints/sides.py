"""The side files of a checkpoint: files such as config and tokenizer, which stay valid when the weights change."""

from collections.abc import Collection
from pathlib import Path

WEIGHT_SUFFIXES = frozenset(
    (
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".gguf",
        ".ggml",
        ".onnx",
        ".data",
        ".h5",
        ".msgpack",
        ".ot",
        ".npz",
    )
)
# Files that describe the weights and are no longer true once the weights change.
BOUND_NAMES = frozenset(
    (
        "head_config.json",
        "gate_config.json",
        "decoding.json",
        "manifest.json",
        "parity.json",
        "edit_record.json",
        "README.md",
    )
)
BOUND_SUFFIXES = (".index.json", ".sig", ".sigstore", ".sigstore.json")


def list_files(folder: Path) -> list[str]:
    """Return the relative paths of all files of a folder, sorted, without hidden ones."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def split_sides(paths: Collection[str]) -> tuple[list[str], list[str]]:
    """Split relative paths into side files, which an edit copies, and files tied to the weights, which it leaves out.

    >>> split_sides(["tokenizer.json", "model.safetensors", "head_config.json"])
    (['tokenizer.json'], ['head_config.json', 'model.safetensors'])
    """
    bound = {path for path in paths if _is_bound(path)}
    return sorted(set(paths) - bound), sorted(bound)


def _is_bound(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name in BOUND_NAMES or name.endswith(BOUND_SUFFIXES) or Path(name).suffix in WEIGHT_SUFFIXES
