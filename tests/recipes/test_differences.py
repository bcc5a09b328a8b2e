"""`diff` of bundles, steered models and other folders names every file and tensor that differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from prosocial.cli.main import main
from prosocial.core.errors import ArtefactError
from prosocial.export.bundle_files.external_data import external_tensors
from prosocial.recipes.inspection.differences import compare_folders

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "0.1.0"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(GOLDEN / name, tmp_path / name))

    return copy


@pytest.mark.parametrize("name", ["bundle", "steered", "gate", "head", "vectors/low-rank", "adapter", "base"])
def test_a_copy_is_the_same(name: str, copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(GOLDEN / name), str(copied(name))]) == 0
    assert "the same weights, bit for bit" in capsys.readouterr().out


def test_one_changed_tensor_of_a_graph_is_named(copied: Callable[[str], Path]) -> None:
    bundle = copied("bundle")
    tensor = external_tensors((bundle / "model.onnx").read_bytes(), source="model.onnx")[3]
    data = bytearray((bundle / tensor.location).read_bytes())
    data[tensor.offset + 2] ^= 1
    (bundle / tensor.location).write_bytes(data)

    difference = compare_folders(GOLDEN / "bundle", bundle)

    assert [item.name for item in difference.changed] == [f"model.onnx: {tensor.name}"]
    assert difference.files == () and not difference.same and difference.changed[0].n_changed == 1


def test_gate_head_and_configs_of_a_steered_model_are_compared(
    copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    steered = copied("steered")
    for file in ("gate.safetensors", "head.safetensors"):
        tensors = load_file(steered / file)
        name = min(tensors)
        save_file(tensors | {name: tensors[name] + 1}, steered / file)
    config = json.loads((steered / "decoding.json").read_text())
    (steered / "decoding.json").write_text(json.dumps(config | {"harm_threshold": 0.01}))
    (steered / "note.txt").write_text("new")
    difference = compare_folders(GOLDEN / "steered", steered)

    assert {item.name.partition(":")[0] for item in difference.changed} == {"gate.safetensors", "head.safetensors"}
    assert "decoding.json differs in: harm_threshold" in difference.files
    assert any(line.startswith("note.txt: only in ") for line in difference.files)
    assert main(["diff", str(GOLDEN / "steered"), str(steered), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["files"] == list(difference.files)


def test_only_a_config_that_differs_leaves_the_weights_the_same(
    copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copied("bundle")
    config = json.loads((bundle / "genai_config.json").read_text())
    config["search"]["temperature"] = 5.0
    (bundle / "genai_config.json").write_text(json.dumps(config))

    assert main(["diff", str(GOLDEN / "bundle"), str(bundle)]) == 1
    printed = capsys.readouterr().out
    assert "genai_config.json differs in: search.temperature" in printed
    assert "the same weights, bit for bit, other files differ" in printed


def test_a_bundle_and_its_steered_model_share_the_gate() -> None:
    difference = compare_folders(GOLDEN / "bundle", GOLDEN / "steered")

    assert difference.n_same >= 1 and all(item.n_changed == 0 for item in difference.changed)  # stored in bf16
    assert "gate.safetensors: U" not in difference.only_second
    assert any("prosocial verify" in note for note in difference.redundant)


def test_external_data_that_is_not_there_and_folders_without_tensors_are_refused(
    copied: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = copied("bundle")
    (bundle / "model.onnx.data").write_bytes(b"")
    with pytest.raises(ArtefactError, match="export the bundle again"):
        compare_folders(GOLDEN / "bundle", bundle)
    with pytest.raises(ArtefactError, match="its files hold none"):
        compare_folders(GOLDEN / "bundle", GOLDEN / "parity")
