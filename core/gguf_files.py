"""What a message says of a GGUF file that stands where a model folder should be."""

from pathlib import Path


def find_gguf(path: Path) -> Path | None:
    """Return a path if it ends in `.gguf`, or the first such file of a folder; None if there is none.

    >>> find_gguf(Path("model-Q4_K_M.GGUF")).name
    'model-Q4_K_M.GGUF'
    """
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return next((each for each in paths if each.suffix.lower() == ".gguf"), None)


def convert_first(file: Path) -> str:
    """Return what was found, a GGUF file, and what to do about it."""
    return (
        f"the GGUF file {file.name}: edit the unquantised parent if there is one, otherwise run "
        f"`prosocial convert {file} -o FOLDER` and give that folder"
    )
