"""Small folders to publish: a bundle by its manifest and its parity report, whose graph nobody opens."""

import json
from pathlib import Path
from typing import Any

from prosocial.core.files import sha256_file
from prosocial.export.bundle_files.manifest import write_manifest
from prosocial.export.hub import HubClient, Published, plan_publication, publish
from prosocial.steering.decoding.config import DecodingConfig

NAME = "org/name"
WEIGHTS = "a" * 64
FACTS = {"kind": "steered", "profile": "portable", "precision": "fp32", "opset": 23, "checkpoint_fingerprint": WEIGHTS}


def make_folder(folder: Path, *, weights: bytes = b"\0weights one") -> Path:
    """Write a bundle of a few bytes that was verified."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"n": len(weights)}))
    DecodingConfig.model_validate({"attributes": ["empathy"], "categories": ["violence", "other"]}).write(folder)
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x12\x02us")  # a model without a graph
    (folder / "model.onnx.data").write_bytes(weights)
    write_manifest(folder, facts=FACTS)
    write_report(folder)
    return folder


def write_report(folder: Path, **changes: Any) -> Path:
    """Write the parity report of a folder where a reader looks for it."""
    subject = {"manifest_sha256": sha256_file(folder / "manifest.json"), "reference_fingerprint": WEIGHTS}
    gate = {"name": "flips", "title": "Tokens", "observed": 0.0, "threshold": 0.0, "verdict": "pass"}
    counts = {"n_positions": 7, "n_prompts": 3, "safe_set": {"n_flips": 0}}
    report = {"schema": "prosocial.parity_report/3", "verdict": "pass", "subject": subject, "gates": [gate]} | counts
    (folder / "signatures").mkdir(exist_ok=True)
    path = folder / "signatures" / "parity.json"
    path.write_text(json.dumps(report | changes))
    return path


def publish_folder(folder: Path, name: str = NAME, **options: Any) -> Published:
    """Plan and publish a folder."""
    hub = HubClient.connect(name)
    plan = plan_publication(folder, name, **({"license": "apache-2.0"} | options))
    return publish(plan, hub, seen=hub.look())


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file by its path, without what the client notes for itself."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".cache/")}
