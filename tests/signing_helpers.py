"""Keys, signed folders, and what an attacker does to them."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.core.signing.envelope import seal, unverified
from prosocial.verify.audit import audit_model
from prosocial.verify.signing import ChainReport, check_chain, sign_folder

from .audit_helpers import base_tensors, edit, make_vector, write

Json = dict[str, Any]


def make_key(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> Path:
    """Write a key pair as PEM files `name.pem` and `name.pub`."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pem").chmod(0o600)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem"


def make_edited(folder: Path, key: Path) -> Path:
    """Make a base, a vector, an edit of it with an audit, and sign the edit as `out`."""
    base = base_tensors(size=24)
    write(folder / "base", base, generation_config__json={})
    make_vector(folder, base)
    edited = edit(folder)
    report = audit_model(edited, base=folder / "base", vectors=[folder / "vector"])
    (folder / "audit.json").write_text(json.dumps(report.to_json()))
    sign_folder(edited, SigningKey.read(key), reports={"audit": folder / "audit.json"})
    return edited


def chain(folder: Path, keys: Path, **options: Any) -> ChainReport:
    """Walk the chain of a folder with the publisher's public key."""
    return check_chain(folder, keys=[TrustedKey.read(keys / "own.pub")], **options)


def change_json(path: Path, change: Callable[[Json], Any]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def change_payload(path: Path, change: Callable[[Json], Any]) -> None:
    """Change what a signed statement says and keep its signature."""

    def within(bundle: Json) -> None:
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(payload)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()

    change_json(path, within)


def sign_payload(path: Path, key: Path, change: Callable[[Json], Any]) -> None:
    """Change what a signed statement says and sign it again with some key."""
    said = unverified(path)
    change(said)
    seal(path, said, SigningKey.read(key))


def flip_last_byte(path: Path) -> None:
    """Change a file by one bit; a hard link elsewhere stays as it is."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.unlink()
    path.write_bytes(raw)


def reference_verifier(folder: Path, public: Path) -> subprocess.CompletedProcess[str]:
    """Run the reference implementation of OpenSSF model signing."""
    words = ["verify", "key", str(folder), "--signature", str(folder / "model.sig"), "--public_key", str(public)]
    command = [sys.executable, "-m", "model_signing", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)
