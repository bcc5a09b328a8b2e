"""Only what the manifest lists is read, as it was when it was checked; who signed is said without being asked."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json, write_json
from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.core.signing.envelope import seal, unverified
from prosocial.export import Bundle, write_manifest
from prosocial.export.runtime import bundle as runtime_bundle
from prosocial.steering.authorisation.authorisation import sign_config
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import NamedConfig, Reason, RefusedConfig
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.verify.signing import sign_folder

from ..signing_helpers import make_key

MESSAGES: Any = [{"role": "user", "content": "word5 word9"}]


def again(folder: Path) -> None:
    """Make the manifest fit what lies there."""
    facts = {key: value for key, value in read_json(folder / "manifest.json").items() if key not in ("files", "schema")}
    write_manifest(folder, facts=facts)


@pytest.fixture
def bundle(llama_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_bundle, tmp_path / "bundle"))


def change_model(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the graph, leave its data, and make the manifest fit."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    change(model)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    again(folder)


def set_external(tensor: Any, location: str, **others: Any) -> Any:
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **others}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


def first_external(model: Any) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.external_data)


def relocate(model: Any, location: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location


def moved_to(place: str, *, stated: str | None = None) -> Callable[[Path], None]:
    """Return an attack: the data lie at `place`, and the graph states it so."""

    def attack(folder: Path) -> None:
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        (folder / "model.onnx.data").rename(target)
        change_model(folder, lambda model: relocate(model, stated or place))

    return attack


def stray(**others: Any) -> Any:
    """Return a small tensor that states a file beside the graph."""
    tensor = TensorProto(name="stray", data_type=TensorProto.FLOAT, dims=[1])
    return set_external(tensor, "signatures/x.data", **others)


def with_stray(place: Callable[[Any, Any], object]) -> Callable[[Path], None]:
    """Return an attack: a tensor somewhere in the graph states a file that the manifest does not list."""

    def attack(folder: Path) -> None:
        (folder / "signatures").mkdir(exist_ok=True)
        (folder / "signatures" / "x.data").write_bytes(bytes(8))
        change_model(folder, lambda model: place(model, stray()))

    return attack


def in_subgraph(model: Any, tensor: Any) -> None:
    graph = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("stray", 1, [1])], [tensor])
    node = helper.make_node("If", ["condition"], ["unused"], then_branch=graph, else_branch=graph)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.node.append(node)


def in_function(model: Any, tensor: Any) -> None:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("mine", "F", [], ["y"], [node], [helper.make_opsetid("", 20)]))


def in_training(model: Any, tensor: Any) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


def in_sparse(model: Any, tensor: Any) -> None:
    model.graph.sparse_initializer.add(dims=[4]).values.CopyFrom(tensor)


def link_outside(folder: Path) -> None:
    """The data are a link to a file outside that somebody else may change later: its bytes count, not its name."""
    outside = folder.parent / "outside.data"
    shutil.copy(folder / "model.onnx.data", outside)
    moved_to("signatures/link.data")(folder)
    (folder / "signatures/link.data").unlink()
    (folder / "signatures/link.data").symlink_to(outside)


def second_location(model: Any) -> None:
    entry = first_external(model).external_data.add()
    entry.key, entry.value = "location", "signatures/x.data"


def prepacked(model: Any) -> None:
    entry = first_external(model).external_data.add()
    entry.key, entry.value = "prepacked_0", "MatMul|0|64|x"


def entry_of(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for entry in first_external(model).external_data:
            if entry.key == key:
                entry.value = value

    return change


def model_change(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda folder: change_model(folder, change)


def raw_change(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        raw = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").write_bytes(change(raw))
        again(folder)

    return attack


def hand_listed(folder: Path) -> None:
    """The manifest lists a file of an exempt name by hand."""
    moved_to("signatures/w.data")(folder)
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["signatures/w.data"] = read_json(folder / "manifest.json")["files"]["model.onnx"]
    write_json(folder / "manifest.json", manifest)


def pipe(folder: Path) -> None:
    """A listed file is a named pipe, at which a reader would wait for ever."""
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


EXEMPT = ("signatures/w.data", ".cache/w.data", ".git/w.data", "weights.sig", "w.sigstore", "README.md", "parity.json")
ATTACKS: dict[str, Callable[[Path], object]] = {
    **{f"weights in {place}": moved_to(place) for place in EXEMPT},
    "weights in .gitattributes": moved_to(".gitattributes"),
    "weights in the manifest": model_change(lambda model: relocate(model, "manifest.json")),
    "weights in the graph itself": model_change(lambda model: relocate(model, "model.onnx")),
    "a listed file by a detour": model_change(lambda model: relocate(model, "presets/../model.onnx.data")),
    "a listed file with a dot": model_change(lambda model: relocate(model, "./model.onnx.data")),
    "a listed file by an absolute path": lambda folder: change_model(
        folder, lambda model: relocate(model, str(folder / "model.onnx.data"))
    ),
    "a listed file in capitals": model_change(lambda model: relocate(model, "MODEL.ONNX.DATA")),
    "a listed file in other code points": moved_to("mödel.data", stated="mo\u0308del.data"),
    "a listed file with a backslash": moved_to("presets/w.data", stated="presets\\w.data"),
    "a file outside": lambda folder: (
        shutil.copy(folder / "model.onnx.data", folder.parent / "w.data"),
        change_model(folder, lambda model: relocate(model, "../w.data")),
    ),
    "a link to a file outside": link_outside,
    "an address in memory": model_change(lambda model: relocate(model, "*/_ORT_MEM_ADDR_/*")),
    "no location": model_change(lambda model: relocate(model, "")),
    "two locations": model_change(second_location),
    "weights that are packed already": model_change(prepacked),
    "an offset past the end": model_change(entry_of("offset", str(1 << 40))),
    "a negative offset": model_change(entry_of("offset", "-8")),
    "a length of another shape": model_change(entry_of("length", "4")),
    "a tensor in a subgraph": with_stray(in_subgraph),
    "a tensor in a function": with_stray(in_function),
    "a tensor in the training information": with_stray(in_training),
    "a sparse tensor": with_stray(in_sparse),
    "a constant": with_stray(
        lambda model, t: model.graph.node.append(helper.make_node("Constant", [], ["y"], value=t))
    ),
    "a list of tensors": with_stray(
        lambda model, t: model.graph.node.append(helper.make_node("X", [], ["y"], domain="x", values=[t]))
    ),
    "two initializers of one name": model_change(
        lambda model: model.graph.initializer.append(first_external(model).__deepcopy__({}))
    ),
    "a graph in groups of protobuf": raw_change(lambda raw: raw + b"\x3b\x3c"),
    "a graph that is a text": raw_change(lambda raw: b"graph"),
    "a file of an exempt name listed by hand": hand_listed,
    "a pipe": pipe,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_graph_reads_nothing_that_the_manifest_does_not_list(bundle: Path, name: str) -> None:
    ATTACKS[name](bundle)
    with pytest.raises(ArtefactError) as refused:
        Bundle.open(bundle, threads=1)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


def test_what_others_would_read_from_exempt_files_is_neither_signed_nor_valid(bundle: Path, tmp_path: Path) -> None:
    """Other clients open the graph by its path, and any graph of the bundle."""
    from prosocial.verify.signing import check_chain

    key = SigningKey.read(make_key(tmp_path, "own"))
    shutil.copy(bundle / "model.onnx", bundle / "other.ONNX")
    moved_to("signatures/w.data")(bundle)
    for name in ("model.onnx", "other.ONNX"):
        with pytest.raises(InputError, match=r"files of its manifest alone"):
            sign_folder(bundle, key)
        shutil.copy(bundle / "signatures/w.data", bundle / "model.onnx.data")
        (bundle / name).unlink()
        if name == "model.onnx":
            shutil.copy(bundle / "other.ONNX", bundle / name)
            change_model(bundle, lambda model: relocate(model, "model.onnx.data"))
            second = onnx.load(bundle / "other.ONNX", load_external_data=False)
            relocate(second, "signatures/w.data")
            (bundle / "other.ONNX").write_bytes(second.SerializeToString())
        again(bundle)
    sign_folder(bundle, key)
    chain = check_chain(bundle, keys=[key.public], allow_missing=("parity", "audit"))
    assert chain.links[2].name == "export" and str(chain.links[2].state) == "valid", chain.links


def test_a_listed_file_of_any_name_may_hold_the_weights(bundle: Path) -> None:
    """The control: the rule is about the manifest, not about names."""
    expected = Bundle.open(bundle, threads=1).generate([MESSAGES])[0]
    moved_to("more/wörds.bin")(bundle)
    assert Bundle.open(bundle, threads=1).generate([MESSAGES])[0] == expected


def test_exempt_files_are_not_read_by_any_reader(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tokenizer and configs are read from holds the listed files alone."""
    seen: list[set[str]] = []

    class Watched(runtime_bundle.ChatTokenizer):
        def __init__(self, folder: Any) -> None:
            seen.append({path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()})
            super().__init__(folder)

    monkeypatch.setattr(runtime_bundle, "ChatTokenizer", Watched)
    (bundle / "signatures").mkdir(exist_ok=True)
    (bundle / "signatures" / "tokenizer.json").write_text("{}")
    Bundle.open(bundle, threads=1)
    assert len(seen) == 1 and seen[0] <= set(read_json(bundle / "manifest.json")["files"])


# ---- What was checked is what is used.


@contextlib.contextmanager
def swapping(path: Path, first: bytes, second: bytes) -> Iterator[None]:
    """Exchange a file by renaming, again and again."""
    stop = threading.Event()

    def swap() -> None:
        at = 0
        while not stop.is_set():
            aside = path.with_name(".swap.sig")
            aside.write_bytes((first, second)[at % 2])
            aside.replace(path)
            at += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", ["decoding.json", "model.onnx.data"])
def test_a_file_exchanged_while_a_bundle_opens_is_never_used(bundle: Path, name: str) -> None:
    good = (bundle / name).read_bytes()
    bad = good.replace(b"I cannot help", b"I may help ya") if name == "decoding.json" else bytes(len(good))
    expected = Bundle.open(bundle, threads=1).generate([MESSAGES])[0]
    n_opened = 0
    with swapping(bundle / name, good, bad):
        for _ in range(25):
            with contextlib.suppress(ArtefactError):
                opened = Bundle.open(bundle, threads=1)
                n_opened += 1
                assert opened.config is not None and opened.config.fallback == "I cannot help with that."
                assert opened.generate([MESSAGES])[0] == expected
    assert n_opened


def test_a_file_replaced_after_opening_changes_nothing_and_a_copy_stands_writing_too(bundle: Path) -> None:
    path = bundle / "model.onnx.data"
    opened = Bundle.open(bundle, threads=1)
    expected = opened.generate([MESSAGES])[0]
    other = bundle.parent / "other"
    other.write_bytes(path.read_bytes())
    path.rename(bundle.parent / "moved")
    other.replace(path)
    copied = Bundle.open(bundle, threads=1, copy=True)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert opened.generate([MESSAGES])[0] == expected == copied.generate([MESSAGES])[0]


LISTED = (
    "config.json",
    "decoding.json",
    "generation_config.json",
    "genai_config.json",
    "model.onnx",
    "model.onnx.data",
    "presets/fiction.onnx_adapter",
    "tokenizer.json",
)


def exchanged(path: Path) -> None:
    path.with_name(".other").write_bytes(bytes(path.stat().st_size))
    path.with_name(".other").replace(path)


def linked(path: Path) -> None:
    outside = path.parents[1] / "outside"
    outside.write_bytes(bytes(8))
    path.unlink()
    path.symlink_to(outside)


@pytest.mark.parametrize("change", [exchanged, linked, Path.unlink], ids=["exchanged", "linked", "deleted"])
@pytest.mark.parametrize("name", LISTED)
def test_what_happens_to_a_file_of_an_opened_bundle_changes_nothing_and_is_noticed_at_the_next_opening(
    bundle: Path, name: str, change: Callable[[Path], None]
) -> None:
    opened = Bundle.open(bundle, threads=1)
    expected = opened.generate([MESSAGES], max_new_tokens=4)
    change(bundle / name)
    assert opened.generate([MESSAGES], max_new_tokens=4) == expected
    with pytest.raises(ArtefactError):
        Bundle.open(bundle, threads=1)


# ---- A signed config binds what is loaded.


def signed_config(bundle: Path, place: Path) -> tuple[Path, TrustStore]:
    key = SigningKey.read(make_key(place, "own"))
    config = NamedConfig(name="mine", text="fights may be told.", allowed=["violence"])
    out = place / "signed.json"
    out.unlink(missing_ok=True)
    decoding, manifest = DecodingConfig.read(bundle), read_json(bundle / "manifest.json")
    sign_config(config, out, key=key, decoding=decoding, manifest=manifest, valid_days=3)
    return out, TrustStore.read([place / "own.pub"])


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_json(folder / name, read_json(folder / name) | changes)

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "the decoding config": edit_json("decoding.json", max_retries=0, fallback="Here is how."),
    "the preset": lambda folder: (folder / "presets/fiction.onnx_adapter").write_bytes(b"other"),
    "the tokenizer's config": edit_json("tokenizer_config.json", note="other"),
    "the end tokens": edit_json("generation_config.json", eos_token_id=[1, 7]),
    "the settings of other clients": edit_json("genai_config.json", precision="other"),
    "one more file": lambda folder: (folder / "special_tokens_map.json").write_text("{}"),
    "one file fewer": lambda folder: (folder / "presets/fiction.onnx_adapter").unlink(),
    "weights of another name": lambda folder: (folder / "w.bin").write_bytes(
        bytes(len((folder / "w.bin").read_bytes()))
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_signed_config_holds_for_the_files_that_it_was_signed_for(bundle: Path, tmp_path: Path, name: str) -> None:
    if name == "weights of another name":
        moved_to("w.bin")(bundle)
    path, trust = signed_config(bundle, tmp_path)
    before = Bundle.open(bundle, threads=1)
    assert before.authorise(path, trust=trust).binds_all
    CHANGES[name](bundle)
    again(bundle)
    with pytest.raises(RefusedConfig) as refused:
        Bundle.open(bundle, threads=1).authorise(path, trust=trust)
    assert refused.value.reason is Reason.OTHER_BUNDLE


def test_a_config_of_version_0_1_0_says_that_it_binds_less(bundle: Path, tmp_path: Path, caplog: Any) -> None:
    path, trust = signed_config(bundle, tmp_path)
    said = unverified(path)
    said["subject"] = [each for each in said["subject"] if each["name"].startswith("model.onnx")]
    seal(path, said, SigningKey.read(tmp_path / "own.pem"))
    assert not Bundle.open(bundle, threads=1).authorise(path, trust=trust).binds_all
    assert "binds graph and weights, but not" in caplog.text
    moved_to("w.bin")(bundle)
    with pytest.raises(RefusedConfig) as refused:
        Bundle.open(bundle, threads=1).authorise(path, trust=trust)
    assert refused.value.reason is Reason.OTHER_BUNDLE


# ---- Who signed.


def test_opening_says_unsigned_not_checked_or_by_whom(bundle: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path, "own")
    own = TrustedKey.read(tmp_path / "own.pub")
    assert str(Bundle.open(bundle, threads=1).signature) == "unsigned"
    with pytest.raises(ArtefactError, match=r"found no model\.sig"):
        Bundle.open(bundle, threads=1, keys=[own])
    sign_folder(bundle, SigningKey.read(key))
    assert str(Bundle.open(bundle, threads=1).signature) == "not checked"
    assert str(Bundle.open(bundle, threads=1, keys=[own]).signature) == f"signed by own.pub ({own.hint[:16]})"
    make_key(tmp_path, "other")
    with pytest.raises(ArtefactError, match="none of the 1 trusted keys"):
        Bundle.open(bundle, threads=1, keys=[TrustedKey.read(tmp_path / "other.pub")])


def forge_blake3(folder: Path) -> None:
    """The manifest's BLAKE3 is that of other bytes, which are put there after the signature."""
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["generation_config.json"]["blake3"] = "0" * 64
    write_json(folder / "manifest.json", manifest)


def sealed_by_another(folder: Path) -> None:
    """The same statement, signed by a key that nobody trusts."""
    path = folder / "signatures/export.intoto.json"
    seal(path, unverified(path), SigningKey.read(make_key(folder.parent, "another")))


def without_signatures(folder: Path) -> None:
    path = folder / "signatures/export.intoto.json"
    envelope = read_json(path)["dsseEnvelope"] | {"signatures": []}
    write_json(path, read_json(path) | {"dsseEnvelope": envelope})


def swapped_statements(folder: Path) -> None:
    first, second = (folder / f"signatures/{name}.intoto.json" for name in ("export", "parity"))
    texts = first.read_bytes(), second.read_bytes()
    second.write_bytes(texts[0])
    first.write_bytes(texts[1])


def flipped(name: str, at: int = -1) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[at] ^= 1
        (folder / name).unlink()
        (folder / name).write_bytes(raw)

    return attack


def as_folder(name: str) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return attack


def other_facts(folder: Path) -> None:
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"checkpoint_fingerprint": "0" * 64})


STRIPPED: dict[str, Callable[[Path], object]] = {
    "all statements": lambda folder: shutil.rmtree(folder / "signatures"),
    "the export's statement": lambda folder: (folder / "signatures/export.intoto.json").unlink(),
    "the parity's statement": lambda folder: (folder / "signatures/parity.intoto.json").unlink(),
    "the signature": lambda folder: (folder / "model.sig").unlink(),
    "a statement that is none": lambda folder: (folder / "signatures/parity.intoto.json").write_text("{}"),
    "a statement for another": lambda folder: shutil.copy(
        folder / "signatures/export.intoto.json", folder / "model.sig"
    ),
    "signature and statements": lambda folder: (
        (folder / "model.sig").unlink(),
        shutil.rmtree(folder / "signatures"),
    ),
    "an empty signature": lambda folder: (folder / "model.sig").write_text(""),
    "a signature that is null": lambda folder: (folder / "model.sig").write_text("null"),
    "half a signature": lambda folder: (folder / "model.sig").write_bytes((folder / "model.sig").read_bytes()[:200]),
    "a signature that is a folder": as_folder("model.sig"),
    "a statement that is a folder": as_folder("signatures/export.intoto.json"),
    "a statement by another key": sealed_by_another,
    "a statement without signatures": without_signatures,
    "statements in each other's place": swapped_statements,
    "a copy of another statement": lambda folder: shutil.copy(
        folder / "signatures/export.intoto.json", folder / "signatures/parity.intoto.json"
    ),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "other facts in the manifest": other_facts,
    "one bit of the weights": flipped("model.onnx.data"),
    "one bit of the weights and the manifest": lambda folder: (flipped("model.onnx.data")(folder), again(folder)),
    "one bit of the tokenizer and the manifest": lambda folder: (
        edit_json("tokenizer_config.json", x=1)(folder),
        again(folder),
    ),
    "one more file": lambda folder: (folder / "vocab.json").write_text("{}"),
    "one more file and the manifest": lambda folder: ((folder / "vocab.json").write_text("{}"), again(folder)),
    "one file fewer and the manifest": lambda folder: (
        (folder / "presets/fiction.onnx_adapter").unlink(),
        again(folder),
    ),
    "one byte and the manifest": lambda folder: (edit_json("generation_config.json", x=1)(folder), again(folder)),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_with_a_key_nothing_may_be_stripped_or_changed(bundle: Path, tmp_path: Path, name: str) -> None:
    from prosocial.core.files import sha256_file

    make_key(tmp_path, "own")
    own = TrustedKey.read(tmp_path / "own.pub")
    manifest = read_json(bundle / "manifest.json")
    subject = {
        "manifest_sha256": sha256_file(bundle / "manifest.json"),
        "reference_fingerprint": manifest["checkpoint_fingerprint"],
    }
    report = {"schema": "prosocial.parity_report/3", "subject": subject, "verdict": "pass", "gates": []}
    write_json(tmp_path / "parity.json", report)
    sign_folder(bundle, SigningKey.read(tmp_path / "own.pem"), reports={"parity": tmp_path / "parity.json"})
    assert Bundle.open(bundle, threads=1, keys=[own]).signature.signer == own
    STRIPPED[name](bundle)
    with pytest.raises(ArtefactError):
        Bundle.open(bundle, threads=1, keys=[own])


def test_a_manifest_whose_two_digests_disagree_is_not_signed(bundle: Path, tmp_path: Path) -> None:
    forge_blake3(bundle)
    with pytest.raises(InputError, match=r"changed: generation_config\.json"):
        sign_folder(bundle, SigningKey.read(make_key(tmp_path, "own")))


def test_the_commands_say_who_signed(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from prosocial.cli.main import main

    words = ["generate", str(bundle), "word5", "--max-new-tokens", "3"]
    key = SigningKey.read(make_key(tmp_path, "own"))
    assert main(words) == 0 and "signature: unsigned" in capfd.readouterr().err
    sign_folder(bundle, key)
    assert main(words) == 0 and "signature: not checked" in capfd.readouterr().err
    assert main([*words, "--copy", "--key", str(tmp_path / "own.pub")]) == 0
    assert f"signature: signed by own.pub ({key.public.hint[:16]})" in capfd.readouterr().err
    assert main([*words, "--json"]) == 0 and json.loads(capfd.readouterr().out)["signature"] == "not checked"
    shutil.rmtree(bundle / "signatures")
    assert main([*words, "--key", str(tmp_path / "own.pub")]) == 2
    assert "signed statement of the e" in capfd.readouterr().err
