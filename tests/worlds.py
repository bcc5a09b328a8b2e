"""Pico worlds that many test files share, made once in a session; torch is imported only where one is asked for."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .pico_models import Pico


@pytest.fixture(scope="session")
def pico() -> "Pico":
    """What the tests make their worlds with."""
    from .pico_models import Pico

    return Pico()


@pytest.fixture(scope="session")
def llama_folder(pico: "Pico", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A steered folder."""
    return pico.steered_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama_bundle(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle in the profile `ort`. Tests that change it copy it first."""
    return _export(llama_folder, tmp_path_factory.mktemp("bundles") / "llama", profile="ort")


@pytest.fixture(scope="session")
def portable_bundle(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle in the profile `portable`."""
    return _export(llama_folder, tmp_path_factory.mktemp("bundles") / "portable", profile="portable")


@pytest.fixture(scope="session")
def plain_bundle(pico: "Pico", tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A plain bundle of a model with tied embeddings, made by the command, and what the command printed."""
    import typer
    from typer.testing import CliRunner

    from prosocial.cli.bundle import export_command

    folder = tmp_path_factory.mktemp("plain")
    pico.write_checkpoint("gpt2", folder / "checkpoint")
    app = typer.Typer()
    app.command()(export_command)
    words = [str(folder / "checkpoint"), "-o", str(folder / "bundle"), "--plain"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder / "bundle", result.stdout


@pytest.fixture(scope="session")
def checkpoint_folder(pico: "Pico", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer."""
    folder = tmp_path_factory.mktemp("verify") / "checkpoint"
    pico.write_checkpoint("llama", folder)
    return folder


@pytest.fixture(scope="session")
def steered_folder(pico: "Pico", checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A steered model on that checkpoint, of two categories, with a random head and a random gate."""
    import torch

    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead
    from prosocial.steering.steered_model import assemble_steered

    folder = tmp_path_factory.mktemp("steered")
    categories = ["violence", "other"]
    torch.manual_seed(1)
    head = CompactHead(pico.attributes, pico.hidden, 4)
    gate = HarmGate(categories, pico.vocabulary, pico.hidden, 4)
    with torch.no_grad():
        head.B.normal_(0.0, 0.3)
        gate.b.normal_(0.0, 0.1)
        gate.a.fill_(-0.5)
    for part in (head, gate):
        part.save(folder / "parts", checkpoint_fingerprint=Checkpoint.open(checkpoint_folder).fingerprint())
    config = DecodingConfig.model_validate(
        {
            "attributes": pico.attributes,
            "categories": categories,
            "plausible_k": 16,
            "harm_threshold": 0.6,
            "threshold_ceiling": 0.9,
            "max_new_tokens": 8,
        }
    )
    parts = folder / "parts"
    assemble_steered(checkpoint=checkpoint_folder, head=parts, gate=parts, config=config, out=folder / "steered")
    return folder / "steered"


@pytest.fixture(scope="session")
def bundle_folder(steered_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that steered model."""
    return _export(steered_folder, tmp_path_factory.mktemp("bundle") / "bundle", profile="ort")


@pytest.fixture
def probes_file(tmp_path: Path) -> Path:
    """Probes in the tokenizer's words."""
    rows = [
        {"id": f"{kind}{index}", "kind": kind, "text": f"word{7 * index + shift} word{index}", "cluster": f"c{index}"}
        for index in range(4)
        for shift, kind in enumerate(("harmful", "twin", "benign"))
    ]
    rows.append({"id": "attacked", "kind": "attack", "attack": "prefill", "text": "word3", "prefill": "word9 word10"})
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def _export(folder: Path, out: Path, *, profile: str) -> Path:
    from prosocial.export import export_bundle

    export_bundle(folder, out, profile=profile)
    return out
