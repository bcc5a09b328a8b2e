"""Every kind of file that the package reads: where a valid one lies, how it is damaged, and what reads it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from prosocial.core.chat import ChatTokenizer
from prosocial.core.signing import TrustedKey
from prosocial.editing import Checkpoint, HarmVector
from prosocial.editing.edits import read_record, undo_edit
from prosocial.editing.vectors import InputMoments
from prosocial.editing.vectors.adapter_config import read_adapter_config
from prosocial.evaluation.probes.loading import load_probes
from prosocial.export import Bundle
from prosocial.recipes.inspection.describing import inspect_artefact
from prosocial.recipes.pipeline import open_recipe
from prosocial.steering.audit_log.log import check_log
from prosocial.steering.authorisation.authorisation import authorise
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import NamedConfig, RefusedConfig
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.training.gate.replies import read_replies
from prosocial.training.reward.pairs import read_pairs
from prosocial.verify.audit import audit_model
from prosocial.verify.parity.measurement import read_measurement
from prosocial.verify.signing import check_chain

from .mutations import damaged_bytes, json_files, jsonl_files, protobuf_files, safetensors_files, yaml_files

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
WITHIN = datetime(2100, 1, 1, tzinfo=UTC)
Damage = Callable[[bytes], st.SearchStrategy[bytes]]


class Reader(NamedTuple):
    """One file of one artefact.

    Attributes:
        folder: the artefact, under the golden folder.
        file: the file that is damaged, inside it.
        damage: strategy of damaged bytes.
        read: reads the artefact's copy; the second argument is an empty folder for what it writes.
        slow: share of the examples that are run, as a divisor.
    """

    folder: str
    file: str
    damage: Damage
    read: Callable[[Path, Path], object]
    slow: int = 1

    @property
    def name(self) -> str:
        """Name of the test."""
        return f"{self.folder}/{self.file}"


def _onnx(data: bytes) -> st.SearchStrategy[bytes]:
    import onnx

    return protobuf_files(data, onnx.ModelProto)


def _vector(folder: Path, _: Path) -> None:
    vector = HarmVector.open(folder)
    for name in vector.names:
        vector.delta(name)


def _chat(folder: Path, _: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    tokenizer.encode_chat(
        [{"role": "system", "content": "be kind."}, {"role": "user", "content": "i feel low. <|end|>"}]
    )
    tokenizer.decode(tokenizer.encode_text("take your time."))


def _fingerprint(folder: Path, _: Path) -> None:
    Checkpoint.open(folder).fingerprint()


def _moments(folder: Path, _: Path) -> None:
    InputMoments.open(folder / "moments.safetensors")


def _measurement(folder: Path, _: Path) -> None:
    read_measurement(folder / "measurements.npz")


def _audit(folder: Path, _: Path) -> None:
    audit_model(folder, base=GOLDEN / "base", vectors=[GOLDEN / "vectors" / "dense"])


def _undo(folder: Path, out: Path) -> None:
    undo_edit(folder / "edited", out / "restored", patch=folder / "undo.patch")


def reseal(folder: Path) -> None:
    """Write the digests of the files into the manifest, as somebody does who changed them on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        digest = sha256(data).hexdigest()
        manifest["files"][name] = {**entry, "sha256": digest, "size": len(data)} if isinstance(entry, dict) else digest
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _bundle(folder: Path, _: Path) -> None:
    opened = Bundle.open(folder, threads=1)
    opened.generate([[{"role": "user", "content": "i feel low."}]], max_new_tokens=2)


def _resealed(folder: Path, out: Path) -> None:
    reseal(folder)
    _bundle(folder, out)


def _chain(folder: Path, _: Path) -> None:
    keys = [TrustedKey.read(GOLDEN / "keys" / "publisher.pub")]
    check_chain(folder, keys=keys, base=GOLDEN / "base", checkpoint=GOLDEN / "edited")


def _authorise(file: str) -> Callable[[Path, Path], object]:
    """Read a signed config, the keys that are trusted and the bundle's decoding config: a refusal is a verdict."""

    def read(folder: Path, _: Path) -> None:
        try:
            authorise(
                folder / file,
                trust=TrustStore.read([folder / "trust.json"]),
                decoding=DecodingConfig.read(GOLDEN / "bundle"),
                manifest=json.loads((GOLDEN / "bundle" / "manifest.json").read_text(encoding="utf-8")),
                delegation=GOLDEN / "bundle" / "signatures" / "config-keys.sigstore",
                clock=lambda: WITHIN,
            )
        except RefusedConfig as refused:
            assert str(refused) and "\n" not in str(refused)

    return read


def _log(folder: Path, _: Path) -> None:
    keys = [TrustedKey.read(GOLDEN / "keys" / "operator.pub")]
    check_log(folder / "requests.jsonl", folder / "requests.jsonl.head.json", keys)


def _recipe(name: str) -> Callable[[Path, Path], object]:
    return lambda folder, _: open_recipe(str(folder / f"{name}.yaml"))


def _inspect(file: str) -> Callable[[Path, Path], object]:
    return lambda folder, _: inspect_artefact(folder / file)


READERS = [
    *(Reader(f"vectors/{kind}", "vector.json", json_files, _vector) for kind in ("dense", "sparse", "low-rank")),
    *(Reader(f"vectors/{kind}", "vector.safetensors", safetensors_files, _vector) for kind in ("sparse", "low-rank")),
    Reader("gate", "gate_config.json", json_files, lambda folder, _: HarmGate.load(folder)),
    Reader("gate", "gate.safetensors", safetensors_files, lambda folder, _: HarmGate.load(folder)),
    Reader("head", "head_config.json", json_files, lambda folder, _: CompactHead.load(folder)),
    Reader("head", "head.safetensors", safetensors_files, lambda folder, _: CompactHead.load(folder)),
    Reader("base", "model-00001-of-00002.safetensors", safetensors_files, _fingerprint),
    Reader("edited", "model.safetensors.index.json", json_files, _fingerprint),
    Reader("edited", "model-00001-of-00002.safetensors", safetensors_files, _audit, 4),
    Reader("edited", "edit_record.json", json_files, lambda folder, _: read_record(folder)),
    Reader("edited", "config.json", json_files, _audit, 4),
    Reader("adapter", "adapter_config.json", json_files, lambda folder, _: read_adapter_config(folder)),
    Reader(
        ".",
        "moments.safetensors",
        safetensors_files,
        lambda folder, _: InputMoments.open(folder / "moments.safetensors"),
    ),
    Reader(".", "undo.patch", safetensors_files, _undo, 4),
    Reader("base", "tokenizer.json", json_files, _chat, 4),
    Reader("base", "tokenizer_config.json", json_files, _chat, 4),
    Reader("base", "generation_config.json", json_files, _chat, 4),
    Reader("base", "chat_template.jinja", damaged_bytes, _chat, 4),
    Reader("steered", "decoding.json", json_files, lambda folder, _: DecodingConfig.read(folder)),
    Reader("bundle", "manifest.json", json_files, _bundle, 4),
    Reader("bundle", "decoding.json", json_files, _resealed, 10),
    Reader("bundle", "genai_config.json", json_files, _resealed, 10),
    Reader("bundle", "model.onnx", _onnx, _resealed, 10),
    Reader("bundle", "model.onnx.data", damaged_bytes, _resealed, 10),
    Reader("bundle", "presets/fiction.onnx_adapter", damaged_bytes, _resealed, 10),
    *(
        Reader("bundle", f"signatures/{name}.json", json_files, _chain, 4)
        for name in ("edit.intoto", "export.intoto", "parity.intoto", "parity")
    ),
    Reader("bundle", "model.sig", json_files, _chain, 4),
    Reader("configs", "arena.json", json_files, lambda folder, _: NamedConfig.read(folder / "arena.json")),
    Reader("configs", "trust.json", json_files, lambda folder, _: TrustStore.read([folder / "trust.json"])),
    *(Reader("configs", f"{name}.json", json_files, _inspect(f"{name}.json")) for name in ("signed", "delegated")),
    *(Reader("configs", f"{name}.json", json_files, _authorise(f"{name}.json")) for name in ("signed", "delegated")),
    Reader("keys", "publisher.pub", damaged_bytes, lambda folder, _: TrustedKey.read(folder / "publisher.pub")),
    Reader("log", "requests.jsonl", jsonl_files, _log),
    Reader("log", "requests.jsonl.head.json", json_files, _log),
    Reader(
        "parity", "measurements.npz", damaged_bytes, lambda folder, _: read_measurement(folder / "measurements.npz")
    ),
    Reader("parity", "parity.json", json_files, _inspect("parity.json")),
    Reader("audit", "audit.json", json_files, _inspect("audit.json")),
    Reader("report", "report.json", json_files, _inspect("report.json")),
    Reader("data", "probes.jsonl", jsonl_files, lambda folder, _: load_probes(folder / "probes.jsonl")),
    Reader("data", "replies.jsonl", jsonl_files, lambda folder, _: read_replies(folder / "replies.jsonl")),
    Reader(
        "data",
        "pairs.jsonl",
        jsonl_files,
        lambda folder, _: read_pairs(folder / "pairs.jsonl", attributes=["empathy", "helpfulness"]),
    ),
    *(
        Reader(
            "recipes",
            f"{name}.yaml",
            yaml_files,
            lambda folder, _, name=name: open_recipe(str(folder / f"{name}.yaml")),
        )
        for name in ("steering", "cosalign", "pico")
    ),
]
