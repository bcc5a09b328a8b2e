"""Loading of a folder's transformers tokenizer, which TRL's trainers need; no code of the folder is run."""

from pathlib import Path
from typing import TYPE_CHECKING

from prosocial.core.errors import ArtefactError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path | str) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a local model folder.

    Raises:
        ArtefactError: there is none, or it needs code of the folder, which is never run.
    """
    from transformers import AutoTokenizer

    from .model import LOADING_ERRORS

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except LOADING_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtefactError(
            f"{folder} should have a tokenizer that loads without its own code: {reason:.300}"
        ) from None
    return tokenizer
