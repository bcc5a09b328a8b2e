"""A GGUF file where a model folder should be: the message names the command that makes a folder of it."""

from pathlib import Path

import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError
from prosocial.core.gguf_files import find_gguf


def test_a_folder_with_a_gguf_file_only_has_no_tokenizer_yet(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    for given in (tmp_path, file):
        with pytest.raises(ArtefactError, match=f"prosocial convert {file} -o FOLDER"):
            ChatTokenizer(given)


def test_other_files_are_no_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()

    assert find_gguf(tmp_path) is None
    assert find_gguf(tmp_path / "model.safetensors") is None
    assert find_gguf(tmp_path / "absent") is None
    with pytest.raises(ArtefactError, match="save the tokenizer there"):
        ChatTokenizer(tmp_path)
