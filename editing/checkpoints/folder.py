"""A checkpoint folder, opened without torch: headers and config now, data on demand."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ArtefactError
from ..files import read_json
from .digests import combine, digest_tensor, stream_tensor
from .header import Header, TensorInfo, read_header
from .sides import list_files, split_sides
from .tied import Tied, find_tied

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face model folder with safetensors weights.

    Attributes:
        folder: where it lies.
        config: the content of `config.json`.
        headers: header of each weight file by its name, in the order of names.
        tensors: every stored tensor by name, sorted; tied copies as stored.
    """

    folder: Path
    config: dict[str, Any]
    headers: dict[str, Header]
    tensors: dict[str, TensorInfo]

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Read config and headers; the weights themselves are not read.

        Raises:
            ArtefactError: no config, no safetensors weights (pickles are not opened), or files that disagree.
        """
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ArtefactError(f"{folder} should be a model folder with config.json: there is none")
        config = read_json(folder / "config.json")
        headers = {name: read_header(folder / name) for name in _weight_files(folder)}
        tensors = [tensor for header in headers.values() for tensor in header.tensors.values()]
        if not tensors:
            raise ArtefactError(f"{folder} should hold weights: its safetensors files hold no tensor")
        return cls(
            folder, config, headers, {tensor.name: tensor for tensor in sorted(tensors, key=lambda item: item.name)}
        )

    def tensor(self, name: str) -> TensorInfo:
        """Return where a tensor lies.

        Raises:
            ArtefactError: there is no tensor of that name.
        """
        if name not in self.tensors:
            raise ArtefactError(f"{self.folder} should hold a tensor {name!r}: it holds {len(self.tensors)} others")
        return self.tensors[name]

    def read(self, name: str) -> bytes:
        """Return the raw bytes of a tensor, little endian.

        Raises:
            ArtefactError: there is no tensor of that name.
        """
        return b"".join(map(bytes, stream_tensor(self.tensor(name))))

    def fingerprint(self) -> str:
        """Return the hex SHA-256 over sorted lines `name dtype shape sha256(raw bytes)`; reads every weight byte."""
        return combine(map(digest_tensor, self.tensors.values()))

    @property
    def n_parameters(self) -> int:
        """Number of elements of all stored tensors."""
        return sum(tensor.n_elements for tensor in self.tensors.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored tensors, headers left out."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    @property
    def n_by_dtype(self) -> dict[str, int]:
        """Number of tensors of each dtype."""
        return dict(sorted(Counter(tensor.dtype for tensor in self.tensors.values()).items()))

    @cached_property
    def tied(self) -> Tied:
        """Whether input embedding and output head are one matrix, and which side is stored."""
        return find_tied(self.config, self.tensors)

    @property
    def side_files(self) -> list[str]:
        """Relative paths of what travels with the weights: config, tokenizer, chat template, licence and so on."""
        return split_sides(list_files(self.folder))[0]

    @property
    def bound_files(self) -> list[str]:
        """Relative paths of further files that belong to these very weights (other formats, heads, signatures)."""
        known = {*self.headers, INDEX_NAME}
        return [path for path in split_sides(list_files(self.folder))[1] if path not in known]


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the weight files, checked against the index where there is one."""
    single, index = (folder / SINGLE_NAME).is_file(), (folder / INDEX_NAME).is_file()
    if index:
        names = _indexed_files(folder)
        if single and names != [SINGLE_NAME]:
            raise ArtefactError(
                f"{folder} should hold one set of weights, found {SINGLE_NAME} and {INDEX_NAME}: delete one"
            )
        return names
    if single:
        return [SINGLE_NAME]
    raise ArtefactError(_no_weights(folder))


def _indexed_files(folder: Path) -> list[str]:
    """Return the shard names of an index whose map says exactly what the shards hold."""
    path = folder / INDEX_NAME
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ArtefactError(
            f"{path} should map tensor names to files under weight_map, found {json.dumps(places)[:80]}"
        )
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or name.startswith(".") or not name.endswith(".safetensors"):
            raise ArtefactError(f"{path} should name safetensors files of its own folder, found {name!r}")
    held = {(tensor, name) for name in names for tensor in read_header(folder / name).tensors}
    wrong = sorted(held ^ set(places.items()))
    if wrong:
        tensor, name = wrong[0]
        state = "not in the index" if wrong[0] in held else "not in the file"
        raise ArtefactError(
            f"{path} should list what its files hold: {tensor!r} in {name} is {state}; save the model again"
        )
    return names


def _no_weights(folder: Path) -> str:
    pickles = [path for path in list_files(folder) if path.endswith(PICKLE_SUFFIXES)]
    if pickles:
        return (
            f"{folder} should hold {SINGLE_NAME} or {INDEX_NAME}, found only pickles ({pickles[0]}), which can run "
            "code: convert them with save_pretrained(..., safe_serialization=True) in a place you can throw away"
        )
    return f"{folder} should hold {SINGLE_NAME} or {INDEX_NAME}: there is neither"
