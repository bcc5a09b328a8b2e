"""A checkpoint folder, opened without torch: headers and config are read at once, tensors on demand."""

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.gguf_files import convert_first, find_gguf

from .digests import combine, digest_tensor, stream_tensor
from .header import Header, TensorInfo
from .place import LocalPlace, Place
from .sides import split_sides
from .tied import Tied, find_tied

SINGLE_NAME = "model.safetensors"
MAX_NAME = 255  # characters of a file name
INDEX_NAME = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face model folder with safetensors weights.

    Attributes:
        folder: path of the folder, or `ORG/NAME` of a Hub repository.
        config: content of `config.json`.
        headers: header of each weight file by file name, sorted by file name.
        tensors: every stored tensor by name, sorted by name; tied tensors only as often as they are stored.
        place: lists and reads the files, locally or on the Hub.
        unusual: what an edit refuses in the layout, in words: stale copies in shards, which the index overrides, and
            shards without an index.
    """

    folder: Path
    config: dict[str, Any]
    headers: dict[str, Header]
    tensors: dict[str, TensorInfo]
    place: Place
    unusual: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Open a local checkpoint by reading its config and headers; the weights are not read.

        Raises:
            ArtefactError: there is no config or no safetensors weights (pickles are never opened), or index and weight
                files contradict each other.
        """
        return cls.open_at(LocalPlace(Path(path)))

    @classmethod
    def open_at(cls, place: Place) -> "Checkpoint":
        """Open a checkpoint in a local folder or on the Hub (see `open`)."""
        folder, files = place.folder, place.files()
        if "config.json" not in files:
            gguf = _gguf(folder, files)
            if gguf:
                raise ArtefactError(f"{folder} should be a model folder, found {convert_first(gguf)}")
            raise ArtefactError(
                f"{folder} should be a model folder, found no config.json; give the one that save_pretrained wrote"
            )
        config = place.read_json("config.json")
        headers, places, unusual = _read_headers(place, files)
        tensors = [
            tensor
            for file, header in headers.items()
            for tensor in header.tensors.values()
            if places.get(tensor.name, file) == file
        ]
        if not tensors:
            raise ArtefactError(f"{folder} should hold weights, its safetensors files hold no tensor; save it again")
        by_name = {tensor.name: tensor for tensor in sorted(tensors, key=lambda item: item.name)}
        return cls(folder, config, headers, by_name, place, unusual)

    def tensor(self, name: str) -> TensorInfo:
        """Return the location, dtype and shape of a tensor.

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
        """Return the hex BLAKE3 over sorted lines `name dtype shape blake3(raw bytes)`; all weights are read."""
        return combine(map(digest_tensor, self.tensors.values()))

    @property
    def n_parameters(self) -> int:
        """Total number of elements of all stored tensors."""
        return sum(tensor.n_elements for tensor in self.tensors.values())

    @property
    def size_bytes(self) -> int:
        """Total size of all stored tensors in bytes, without headers."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    @property
    def n_by_dtype(self) -> dict[str, int]:
        """Number of tensors of each dtype."""
        return dict(sorted(Counter(tensor.dtype for tensor in self.tensors.values()).items()))

    @cached_property
    def tied(self) -> Tied:
        """Whether input embedding and output head are tied, and which of the two is stored."""
        return find_tied(self.config, self.tensors)

    @property
    def side_files(self) -> list[str]:
        """Relative paths of the files that an edit copies: config, tokenizer, chat template, licence and so on."""
        return split_sides(self.place.files())[0]

    @property
    def bound_files(self) -> list[str]:
        """Relative paths of further files that are valid for these weights only (other formats, heads, signatures)."""
        known = {*self.headers, INDEX_NAME}
        return [path for path in split_sides(self.place.files())[1] if path not in known]


Layout = tuple[dict[str, Header], dict[str, str], tuple[str, ...]]  # headers, file by tensor, what is unusual


def _read_headers(place: Place, files: Collection[str]) -> Layout:
    """Return the headers of the weight files; if there is an index, check them against it."""
    if INDEX_NAME in files:
        layout = _indexed_headers(place)
        headers = layout[0]
        if SINGLE_NAME in files and list(headers) != [SINGLE_NAME]:
            raise ArtefactError(
                f"{place.folder} should hold one set of weights, found {SINGLE_NAME} and {INDEX_NAME}: delete one"
            )
        return layout
    if SINGLE_NAME in files:
        return {SINGLE_NAME: place.read_header(SINGLE_NAME)}, {}, ()
    shards = sorted(path for path in files if SHARD.fullmatch(path))
    if shards and len(shards) == int(shards[0].removesuffix(".safetensors").rpartition("-")[2]):
        return _unindexed_headers(place, shards)
    if shards:
        raise ArtefactError(
            f"{place.folder} should hold {INDEX_NAME} and all shards, found {len(shards)} shards such as {shards[0]} "
            "and no index: download the folder again"
        )
    raise ArtefactError(_no_weights(place.folder, files))


def _unindexed_headers(place: Place, shards: list[str]) -> Layout:
    """Return the headers of a complete set of shards that no index describes."""
    headers = {name: place.read_header(name) for name in shards}
    names = [tensor for header in headers.values() for tensor in header.tensors]
    if len(set(names)) < len(names):
        raise ArtefactError(
            f"{place.folder} should hold {INDEX_NAME}, because its shards hold a tensor twice: there is none; download "
            "the folder again"
        )
    return headers, {}, (f"{len(shards)} shards without {INDEX_NAME}, which transformers needs",)


def _indexed_headers(place: Place) -> Layout:
    """Return the headers of the shards that an index names, and check that they hold its tensors and no others.

    A tensor may lie in a second shard too (an overlay): the index says which one counts.
    """
    path = place.folder / INDEX_NAME
    places = place.read_json(INDEX_NAME).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ArtefactError(
            f"{path} should map tensor names to files under weight_map, found {json.dumps(places)[:80]}; "
            "save the model again"
        )
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or name[:1] == "." or not name.endswith(".safetensors") or len(name) > MAX_NAME:
            raise ArtefactError(
                f"{path} should name safetensors files in its folder, found {name!r:.80}; save it again"
            )
    headers = {name: place.read_header(name) for name in names}
    held = {(tensor, name) for name, header in headers.items() for tensor in header.tensors}
    stale = sorted((tensor, name) for tensor, name in held if places.get(tensor, name) != name)
    wrong = sorted(held - set(stale) ^ set(places.items()))
    if wrong:
        tensor, name = wrong[0]
        state = "not in the index" if wrong[0] in held else "not in the file"
        raise ArtefactError(
            f"{path} should list what its files hold: {tensor!r} in {name} is {state}; save the model again"
        )
    return (
        headers,
        places,
        tuple(
            f"stale copy of {tensor} in {name}: the index takes the one in {places[tensor]}" for tensor, name in stale
        ),
    )


def _gguf(folder: Path, files: Collection[str]) -> Path | None:
    """Return a GGUF file among the files of a folder or a Hub repository, or in its place."""
    paths = (find_gguf(path) for path in (folder, *(folder / path for path in files)))
    return next(filter(None, paths), None)


def _no_weights(folder: Path, files: Collection[str]) -> str:
    expected = f"{folder} should hold {SINGLE_NAME} or {INDEX_NAME}"
    pickles = [path for path in files if path.endswith(PICKLE_SUFFIXES)]
    if pickles:
        return (
            f"{expected}, found only pickles ({pickles[0]}), which can run code: convert them with "
            "save_pretrained(..., safe_serialization=True) in a disposable environment"
        )
    gguf = _gguf(folder, files)
    if gguf:
        return f"{expected}, found {convert_first(gguf)}"
    return f"{expected}: there is neither; give the folder that save_pretrained wrote"
