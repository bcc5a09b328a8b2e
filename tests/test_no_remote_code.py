"""No code of a repository is run: every call that could be asked to do so says no, whatever standard input answers."""

import ast
import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import ArtefactError, ProsocialError

from .pico_models import write_checkpoint
from .roots import ROOT, ROOTS

# These neither take the argument nor run code: the first reads our bundles; peft's reads a config that was checked.
OWN = {"Bundle", "RewardModel", "cls", "PeftModel"}
LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline", "get_class_from_dynamic_module"}


def unsafe_calls(source: str) -> Iterator[int]:
    """Yield the line of each call of transformers or datasets that may run code of a repository."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        owner = called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
        said = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
        is_no = [isinstance(value, ast.Constant) and value.value is False for value in said] == [True]
        if (name in LOADERS and owner not in OWN and not is_no) or (said and not is_no):
            yield node.lineno


def test_every_call_says_no() -> None:
    paths = [path for root in (*ROOTS, "package") for path in (ROOT / root).rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in unsafe_calls(path.read_text("utf-8"))]
    assert found == [] and len(paths) > 100


@pytest.mark.parametrize(
    "call",
    [
        "AutoTokenizer.from_pretrained(folder)",
        "transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "AutoModel.from_config(config, trust_remote_code=flag)",
        "load_dataset(name)",
        "anything(trust_remote_code=True)",
    ],
)
def test_the_reader_of_calls_sees_each_form(call: str) -> None:
    assert [*unsafe_calls(call)] == [1]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder whose tokenizer and model name code of its own; standard input answers yes to everything."""
    folder = tmp_path / "model"
    write_checkpoint("llama", folder)
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Trap: pass\n"
    (folder / "trap.py").write_text(code)
    maps = {key: "trap.Trap" for key in ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")}
    for name, more in {
        "config.json": {"model_type": "trap", "auto_map": maps},
        "tokenizer_config.json": {"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": [None, "trap.Trap"]}},
    }.items():
        path = folder / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | more))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    return folder


def tokenizer(folder: Path) -> None:
    from prosocial.editing.checkpoints.tokenizer import load_tokenizer

    load_tokenizer(folder)


def chat(folder: Path) -> None:
    from prosocial.core import ChatTokenizer

    ChatTokenizer(folder).encode_chat([{"role": "user", "content": "word1"}])


def model(folder: Path) -> None:
    from prosocial.editing.checkpoints import load_model

    load_model(folder).generate(max_new_tokens=1)


def classifier(folder: Path) -> None:
    from prosocial.evaluation.judges.sequence_classifier import SequenceClassifier

    SequenceClassifier(folder)


def merge(name: str, **values: Any) -> Callable[[Path], object]:
    """Return a change of a JSON file of a folder."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))

    return change


def own_generation(folder: Path) -> None:
    """transformers runs such a file where `generate` may load code."""
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "trap.py", folder / "custom_generate" / "generate.py")
    merge("generation_config.json", custom_generate=str(folder))(folder)


KNOWN = {"model_type": "llama"}
MAPS = {key: "trap.Trap" for key in ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")}
FORMS: dict[str, Callable[[Path], object]] = {
    "a type of its own": lambda folder: None,
    "a type that transformers knows": merge("config.json", **KNOWN),
    "code of another repository": merge("config.json", auto_map={key: "org/name--trap.Trap" for key in MAPS}),
    "code outside the folder": merge("config.json", **KNOWN, auto_map={key: "../model/trap.Trap" for key in MAPS}),
    "only a slow tokenizer": lambda folder: (
        (folder / "tokenizer.json").unlink(),
        merge("tokenizer_config.json", auto_map={"AutoTokenizer": ["trap.Trap", None]})(folder),
    ),
    "generation of its own": lambda folder: (merge("config.json", **KNOWN)(folder), own_generation(folder)),
    "a processor": merge("preprocessor_config.json", auto_map={"AutoProcessor": "trap.Trap"}, processor_class="Trap"),
}
LOADS = (tokenizer, chat, model, classifier)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.__name__)
def test_a_yes_on_standard_input_runs_nothing(trap: Path, tmp_path: Path, form: str, load: Any) -> None:
    FORMS[form](trap)

    try:
        load(trap)
    except ProsocialError as refused:
        assert "\n" not in str(refused)

    assert not (tmp_path / "ran").exists() and "trap" not in sys.modules


def test_the_trap_is_one(trap: Path, tmp_path: Path) -> None:
    """The control: transformers runs it where code is allowed."""
    from transformers import AutoTokenizer

    with contextlib.suppress(Exception):
        AutoTokenizer.from_pretrained(trap, trust_remote_code=True)

    assert (tmp_path / "ran").exists()


def test_an_adapter_that_names_a_module_to_import_is_refused(tmp_path: Path) -> None:
    from prosocial.training.gate.harmful_model import load_harmful

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "megatron_config": {"a": 1}, "megatron_core": "antigravity"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="plain LoRA"):
        load_harmful(adapter, base=tmp_path)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ArtefactError, match="never a pickle"):
        load_harmful(adapter, base=tmp_path)
    assert "antigravity" not in sys.modules
