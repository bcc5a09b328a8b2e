"""The roots' public lists: enough to work with alone, documented, and any path may be a text."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin, is_typeddict

import pytest

from prosocial.core import ChatTokenizer, SigningKey, TrustedKey
from prosocial.editing import Checkpoint, HarmVector, make_vector, subtract, undo_edit
from prosocial.evaluation import load_probes, open_system, read_probes, write_probes
from prosocial.export import check_manifest, write_manifest
from prosocial.steering import (
    AuditLog,
    CompactHead,
    DecodingConfig,
    HarmGate,
    TrustStore,
    assemble_steered,
    check_log,
)
from prosocial.training import read_pairs, read_replies
from prosocial.verify import audit_model, check_chain, sign

from .signing_helpers import make_key

ROOTS = ("core", "editing", "steering", "training", "export", "evaluation", "verify")
LISTS: dict[str, ModuleType] = {root: import_module(f"prosocial.{root}") for root in ROOTS}
NAMES = [(root, name) for root in ROOTS for name in LISTS[root].__all__]
ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
COMMANDS = ("audit", "compare", "diff", "edit", "publish", "sign", "sweep", "verify", "weights")
PASSED_ON = {"RemoteState"}  # what `HubClient.look` returns, for `publish`
OPENED = {"Bundle", "Checkpoint"}  # made by `open`, which takes any path; their own parts are ready to use


@pytest.mark.parametrize(("root", "name"), NAMES, ids=str)
def test_a_public_name_says_what_it_is(root: str, name: str) -> None:
    value = getattr(LISTS[root], name)

    assert name == "Message" or (inspect.isclass(value) or inspect.isfunction(value))
    assert len(inspect.getdoc(value) or "") > 20


def functions(value: Any) -> Iterator[Callable[..., Any]]:
    """Yield what a public name offers to be called: the function, or the constructor and methods of a class."""
    if inspect.isfunction(value):
        yield value
    elif inspect.isclass(value):
        members = [getattr(member, "__func__", member) for name, member in vars(value).items() if name[0] != "_"]
        yield from filter(inspect.isfunction, members)
        if value.__name__ not in OPENED and inspect.isfunction(vars(value).get("__init__")):
            yield value.__init__


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters; those that only type checkers can read are left out."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, vars(sys.modules[function.__module__]))
            except NameError:
                continue
        found[name] = annotation
    return found


def takes_path_alone(annotation: Any) -> bool:
    """Whether a `Path` stands somewhere without a `str` beside it."""
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType) and {str, Path} <= {*parts}:
        parts = tuple(part for part in parts if part is not Path)
    return annotation is Path or any(map(takes_path_alone, (part for part in parts if not isinstance(part, list))))


def test_a_path_alone_is_found() -> None:
    """The control of the next test."""
    assert all(map(takes_path_alone, (Path, Path | None, list[Path], dict[str, Path | None])))
    assert not any(map(takes_path_alone, (str, Path | str | None, list[str | Path], dict[str, Path | str])))


@pytest.mark.parametrize(("root", "name"), NAMES, ids=str)
def test_any_path_may_be_a_text(root: str, name: str) -> None:
    for function in functions(getattr(LISTS[root], name)):
        alone = [key for key, annotation in annotations(function).items() if takes_path_alone(annotation)]
        assert alone == [], f"{function.__qualname__} should take str | Path"


def own_classes(annotation: Any) -> Iterator[type]:
    """Yield the classes of this package that an argument is made of; a protocol or a typed dict needs no import."""
    is_own = inspect.isclass(annotation) and annotation.__module__.startswith("prosocial.")
    if is_own and not getattr(annotation, "_is_protocol", False) and not is_typeddict(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from (one for item in (part if isinstance(part, list) else [part]) for one in own_classes(item))


@pytest.mark.parametrize(("root", "name"), NAMES, ids=str)
def test_what_a_public_function_takes_is_public(root: str, name: str) -> None:
    function = getattr(LISTS[root], name)
    if not inspect.isfunction(function):
        return
    public = [getattr(LISTS[root], name) for root, name in NAMES]
    taken = {one for annotation in annotations(function).values() for one in own_classes(annotation)}

    assert {one.__name__ for one in taken if one not in public} - PASSED_ON == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_what_the_lists_name(command: str) -> None:
    tree = ast.parse((ROOT / "cli" / f"{command}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (words := str(node.module).split("."))[0] == "prosocial":
            listed = LISTS[words[1]].__all__ if words[1] in ROOTS and len(words) > 2 else []
            assert [alias.name for alias in node.names if alias.name in listed] == [], f"take it from {words[1]}"


def test_the_package_itself_is_light() -> None:
    program = "import sys, prosocial; assert prosocial.__version__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert {"numpy", "torch", "pydantic", "typer"} & {*done.stdout.split()} == set()


READ: dict[str, Callable[[str], object]] = {
    "base": ChatTokenizer,
    "base ": Checkpoint.open,
    "base  ": open_system,
    "keys/operator.pub": TrustedKey.read,
    "vectors/dense": HarmVector.open,
    "edited": lambda path: audit_model(path, base=str(GOLDEN / "base"), vectors=[str(GOLDEN / "vectors" / "dense")]),
    "edited ": lambda path: check_chain(path, keys=[_publisher()], base=str(GOLDEN / "base"), allow_missing=["audit"]),
    "head": CompactHead.load,
    "gate": HarmGate.load,
    "steered": DecodingConfig.read,
    "configs/trust.json": lambda path: TrustStore.read([path]),
    "log/requests.jsonl": lambda path: check_log(path, f"{path}.head.json", [_operator()]),
    "data/pairs.jsonl": lambda path: read_pairs(path, attributes=["empathy", "helpfulness"]),
    "data/replies.jsonl": lambda path: read_replies(path, categories=["violence", "privacy", "other"]),
    "data/probes.jsonl": read_probes,
    "data/probes.jsonl ": load_probes,
    "bundle": check_manifest,
}


@pytest.mark.parametrize("path", READ)
def test_reading_takes_a_text(path: str) -> None:
    assert READ[path](str(GOLDEN / path.strip())) is not None


def _publisher() -> TrustedKey:
    return TrustedKey.read(GOLDEN / "keys" / "publisher.pub")


def _operator() -> TrustedKey:
    return TrustedKey.read(GOLDEN / "keys" / "operator.pub")


def test_an_edit_is_made_and_taken_back_by_texts(tmp_path: Path) -> None:
    base, vector = str(GOLDEN / "base"), str(GOLDEN / "vectors" / "dense")
    out, patch = f"{tmp_path}/edited", f"{tmp_path}/undo.patch"
    record = subtract(base, vector, out, scale=0.5, patch=patch)

    assert record.result.fingerprint == Checkpoint.open(out).fingerprint() != record.base.fingerprint
    assert undo_edit(out, f"{tmp_path}/by-patch", patch=patch) == record.base.fingerprint
    assert undo_edit(out, f"{tmp_path}/by-base", base=base) == record.base.fingerprint


def test_subtract_takes_an_open_checkpoint_and_is_plan_and_apply(tmp_path: Path) -> None:
    vector = GOLDEN / "vectors" / "dense"
    first = subtract(Checkpoint.open(GOLDEN / "base"), vector, tmp_path / "one", scale=0.5)
    planned = LISTS["editing"].plan_edit(Checkpoint.open(GOLDEN / "base"), vector, scale=0.5)

    assert first == LISTS["editing"].apply_edit(planned, tmp_path / "two")
    nothing = subtract(GOLDEN / "base", vector, tmp_path / "three", scale=0.0)
    assert nothing.result.fingerprint == nothing.base.fingerprint


def test_a_vector_is_made_of_one_folder_or_several(tmp_path: Path) -> None:
    saved = str(GOLDEN / "vectors" / "dense")
    one, several = make_vector(saved, f"{tmp_path}/one"), make_vector([saved], tmp_path / "several")

    assert one.summary == several.summary


def test_writing_takes_a_text(tmp_path: Path) -> None:
    folder, key = str(tmp_path), make_key(tmp_path, "own")
    HarmGate.load(GOLDEN / "gate").save(f"{folder}/gate", checkpoint_fingerprint="0" * 64)
    CompactHead.load(GOLDEN / "head").save(f"{folder}/head", checkpoint_fingerprint="0" * 64)
    DecodingConfig.read(GOLDEN / "steered").write(folder)
    write_probes(f"{folder}/probes.jsonl", read_probes(GOLDEN / "data" / "probes.jsonl"))
    AuditLog(f"{folder}/log.jsonl", f"{folder}/log.head.json", SigningKey.read(str(key))).append({})
    write_manifest(f"{folder}/gate")

    assert {"gate", "head", "decoding.json", "probes.jsonl", "log.jsonl", "log.head.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert check_manifest(f"{folder}/gate")["files"].keys() == {"gate.safetensors", "gate_config.json"}
    assert sign(f"{folder}/gate", SigningKey.read(key))[-1:] == ["model.sig"]


def test_a_steered_folder_is_assembled_by_texts(tmp_path: Path) -> None:
    parts = {
        name: str(GOLDEN / folder) for name, folder in (("checkpoint", "edited"), ("head", "head"), ("gate", "gate"))
    }
    config = DecodingConfig.read(GOLDEN / "steered")
    assemble_steered(**parts, config=config, out=f"{tmp_path}/steered")

    assert DecodingConfig.read(f"{tmp_path}/steered") == config
