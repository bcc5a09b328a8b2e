"""Steered folders and bundles of real architectures with random weights, and faults that are put into a bundle."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from prosocial.core.files import read_json
from prosocial.editing.checkpoints import Checkpoint
from prosocial.export import export_bundle, write_manifest
from prosocial.steering.steered_model import assemble_steered

from ..architectures import random_model
from ..pico_models import ATTRIBUTES, CATEGORIES, make_config, write_tokenizer

Array = NDArray[Any]


def make_world(folder: Path, architecture: str, profile: Any = "portable") -> tuple[Path, Path]:
    """Write a steered model of an architecture and its bundle."""
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead

    torch.set_num_threads(1)
    model = random_model(architecture)
    model.save_pretrained(folder / "checkpoint")
    write_tokenizer(folder / "checkpoint")
    hidden_size, vocabulary_size = model.get_output_embeddings().weight.shape[::-1]
    torch.manual_seed(1)
    head = CompactHead(ATTRIBUTES, hidden_size, 4)
    gate = HarmGate(CATEGORIES, vocabulary_size, hidden_size, 4)
    with torch.no_grad():
        head.B.normal_(0.0, 0.3)
        gate.b.normal_(0.0, 0.1)
        gate.a.fill_(-0.7)
    for part in (head, gate):
        part.save(folder / "parts", checkpoint_fingerprint=Checkpoint.open(folder / "checkpoint").fingerprint())
    steered, parts = folder / "steered", folder / "parts"
    assemble_steered(checkpoint=folder / "checkpoint", head=parts, gate=parts, config=make_config(), out=steered)
    export_bundle(steered, folder / "bundle", profile=profile)
    return steered, folder / "bundle"


def change_weight(name: str, change: Callable[[Array], Array]) -> Callable[[Path], None]:
    """Return a fault: one constant of the graph, found by a part of its name, is another."""

    def fault(folder: Path) -> None:
        def within(graph: onnx.GraphProto) -> None:
            (found,) = (each for each in graph.initializer if name in each.name)
            values = np.array(numpy_helper.to_array(found))
            found.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), found.name))

        change_graph(folder, within)

    return fault


def change_graph(folder: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change a bundle's graph and make its manifest fit."""
    model = onnx.load(folder / "model.onnx")
    change(model.graph)
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).unlink(missing_ok=True)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    fit_manifest(folder)


def fit_manifest(folder: Path) -> None:
    """Make the manifest fit what lies there."""
    manifest = read_json(folder / "manifest.json")
    write_manifest(folder, facts={key: value for key, value in manifest.items() if key not in ("files", "schema")})


def copy(folder: Path, to: Path) -> Path:
    """Copy a bundle without links."""
    return Path(shutil.copytree(folder, to))
