"""The bundle: checked before anything is loaded, run without torch, refused when it is not what it says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json
from prosocial.export import Bundle, export_bundle, write_manifest
from prosocial.export.runtime.session import session_options
from prosocial.steering.decoding.loop import generate
from prosocial.steering.torch_engine import PlainEngine

BLOCKED = "import sys\nfor name in {names}: sys.modules[name] = None\n"
RUN = """
from pathlib import Path
from prosocial.export import Bundle
from prosocial.steering import Steering
bundle = Bundle.open(sys.argv[1], threads=1)
messages = [{"role": "user", "content": "word5 word9"}]
reply = bundle.generate([messages], steering=Steering(preference={"empathy": 1.0}), temperature=0.7, seed=3)[0]
print(list(reply.token_ids))
"""


@pytest.fixture
def changed(llama_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the bundle, change one JSON file, and make the manifest fit again."""

    def change(name: str, edit: Callable[[dict[str, Any]], object]) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(llama_bundle, folder)
        data, manifest = read_json(folder / name), read_json(folder / "manifest.json")
        edit(manifest if name == "manifest.json" else data)
        if name != "manifest.json":
            (folder / name).write_text(json.dumps(data))
        facts = {key: value for key, value in manifest.items() if key not in ("files", "schema")}
        write_manifest(folder, facts=facts)
        return folder

    return change


def run_python(code: str, *names: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED.format(names=list(names)) + code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_holds_what_the_table_of_artefacts_says(llama_bundle: Path) -> None:
    names = {path.name for path in llama_bundle.iterdir()}
    assert names == {
        "model.onnx", "model.onnx.data", "genai_config.json", "decoding.json", "config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "prompts.json", "parity.json",
        "manifest.json", "README.md", "presets",
    }  # fmt: skip
    manifest = read_json(llama_bundle / "manifest.json", schema="prosocial.manifest/1")
    covered = names - {"manifest.json", "parity.json", "README.md", "presets"}
    assert set(manifest["files"]) == covered | {"presets/fiction.onnx_adapter"}
    assert (manifest["kind"], manifest["profile"], manifest["context_length"]) == ("steered", "ort", 128)
    parity = read_json(llama_bundle / "parity.json", schema="prosocial.parity/1")
    assert parity["max_logit_difference"] < 1e-4 and parity["n_positions"] == 120


def test_the_runtime_needs_no_torch(llama_bundle: Path) -> None:
    blocked = run_python(RUN, "torch", "transformers", "onnx", "onnxscript", folder=llama_bundle)
    assert blocked.returncode == 0, blocked.stderr
    free = run_python(RUN, folder=llama_bundle)
    assert blocked.stdout == free.stdout and len(json.loads(blocked.stdout)) > 3


def test_the_bundle_is_checked_before_the_runtime_is_looked_for(llama_bundle: Path, tmp_path: Path) -> None:
    whole = run_python(RUN, "onnxruntime", folder=llama_bundle)
    assert "MissingExtraError: onnxruntime is needed here" in whole.stderr and "prosocial[cpu]" in whole.stderr
    shutil.copytree(llama_bundle, tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.onnx.data").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff")
    broken = run_python(RUN, "onnxruntime", folder=tmp_path / "bundle")
    assert "ArtefactError" in broken.stderr and "changed: model.onnx.data" in broken.stderr


def test_a_decoding_config_that_does_not_hold_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(ArtefactError, match="beta"):
        Bundle.open(changed("decoding.json", lambda data: data.update(beta=-1.0)))


def test_a_session_option_that_loads_code_is_refused(changed: Callable[..., Path]) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["model"]["decoder"]["session_options"]["custom_ops_library"] = "evil.so"

    with pytest.raises(ArtefactError, match="custom_ops_library"):
        Bundle.open(changed("genai_config.json", edit))


@pytest.mark.parametrize("change", [{"kind": "steer"}, {"profile": "fast"}, {"context_length": "long"}])
def test_a_manifest_without_its_facts_is_refused(changed: Callable[..., Path], change: dict[str, str]) -> None:
    with pytest.raises(ArtefactError, match="should say its kind"):
        Bundle.open(changed("manifest.json", lambda data: data.update(change)))


def test_a_steered_bundle_cannot_pass_for_a_plain_one(changed: Callable[..., Path]) -> None:
    folder = changed("manifest.json", lambda data: data.update(kind="plain"))
    with pytest.raises(ArtefactError, match="should hold no decoding"):
        Bundle.open(folder)
    (folder / "decoding.json").unlink()
    facts = {key: value for key, value in read_json(folder / "manifest.json").items() if key not in ("files", "schema")}
    write_manifest(folder, facts=facts)
    with pytest.raises(ArtefactError, match="should have the outputs"):
        Bundle.open(folder)


def test_session_options() -> None:
    assert session_options({"intra_op_num_threads": 4})["intra_op_num_threads"] == 4
    assert session_options({"intra_op_num_threads": 4}, threads=1)["intra_op_num_threads"] == 1
    with pytest.raises(ArtefactError, match="provider_options"):
        session_options({"provider_options": [{"cuda": {}}]})
    with pytest.raises(ArtefactError, match="numbers"):
        session_options({"intra_op_num_threads": "4"})


def test_a_provider_that_is_not_there_is_named(llama_bundle: Path) -> None:
    for name in ("dml", "tpu", "CUDAExecutionProvider"):
        with pytest.raises(InputError, match=rf"\(.*cpu\), the value is '{name}': .*prosocial\[gpu\]"):
            Bundle.open(llama_bundle, provider=name)
    assert Bundle.open(llama_bundle, provider="CPUExecutionProvider", threads=1).session.device == "cpu"


def test_a_plain_bundle_is_the_model_alone(pico: Any, plain_bundle: tuple[Path, str]) -> None:
    folder = plain_bundle[0]
    bundle, manifest = Bundle.open(folder, threads=1), read_json(folder / "manifest.json")
    assert bundle.config is None and manifest["kind"] == "plain" and not (folder / "decoding.json").exists()
    conversations, tokenizer = pico.conversations(5), ChatTokenizer(folder)
    expected = generate(PlainEngine(pico.model("gpt2")), tokenizer, conversations, max_new_tokens=8, batch_size=3)
    actual = bundle.generate(conversations, max_new_tokens=8)
    assert [reply.token_ids for reply in actual] == [reply.token_ids for reply in expected]


def test_tied_embeddings_are_stored_once(pico: Any, plain_bundle: tuple[Path, str]) -> None:
    manifest = read_json(plain_bundle[0] / "manifest.json")
    n_bytes = 4 * sum(parameter.numel() for parameter in pico.model("gpt2").parameters())  # tied ones counted once
    assert len(manifest["shared_tensors"]) == 1
    assert manifest["files"]["model.onnx.data"]["size_bytes"] < n_bytes + 4 * pico.vocabulary * pico.hidden


def test_nothing_is_written_when_the_input_is_wrong(pico: Any, llama_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(InputError, match="ort, portable"):
        export_bundle(llama_folder, out, profile="fast")  # type: ignore[arg-type]
    with pytest.raises(ArtefactError, match="--plain"):
        export_bundle(llama_folder.parent / "checkpoint", out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="should not exist yet"):
        export_bundle(llama_folder, tmp_path / "full")
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == ["full"]


def test_genai_config_names_the_graph(llama_bundle: Path) -> None:
    config = read_json(llama_bundle / "genai_config.json")
    model, decoder = config["model"], config["model"]["decoder"]
    assert (model["type"], model["vocab_size"], model["context_length"], model["eos_token_id"]) == (
        "decoder",
        200,
        128,
        [1],
    )
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (2, 2, 8)
    assert config["search"]["past_present_share_buffer"] is True
    names = Bundle.open(llama_bundle, threads=1).session.past_names
    assert decoder["inputs"]["past_key_names"] % 1 in names and decoder["inputs"]["past_value_names"] % 0 in names
