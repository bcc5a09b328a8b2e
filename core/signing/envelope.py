"""Signed statements: an in-toto statement in a DSSE envelope in a Sigstore bundle, signed with an EC key.

Specifications: in-toto attestation v1, DSSE v1 (the signature covers the pre-authentication encoding, PAE), Sigstore
bundle v0.3. `unseal` parses the payload only after it has verified the signature, and from the bytes that were signed.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtefactError
from ..files import canonical_json, read_json, write_json
from ..json_text import parse_json
from .keys import SigningKey, TrustedKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
Statement = dict[str, Any]


class BrokenSignature(Exception):  # noqa: N818 - a verdict, not an error
    """A signed statement or folder cannot be trusted; the message says why."""


def statement(predicate_type: str, subject: list[dict[str, Any]], predicate: dict[str, Any]) -> Statement:
    """Return an in-toto statement v1 as plain data.

    Args:
        predicate_type: URI of the kind of predicate.
        subject: what the statement is about: names with digests.
        predicate: what is stated.
    """
    return {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": predicate_type, "predicate": predicate}


def seal(path: Path, content: Statement, key: SigningKey) -> None:
    """Sign a statement and write it to `path` as a Sigstore bundle."""
    payload = canonical_json(content).encode("utf-8")
    signature = {"sig": _text(key.sign(_authenticated(payload))), "keyid": ""}
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
        "dsseEnvelope": {"payload": _text(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]},
    }
    write_json(path, bundle)


def unseal(path: Path, keys: Sequence[TrustedKey]) -> tuple[Statement, TrustedKey]:
    """Verify a signed statement; return it and the trusted key that signed it.

    Raises:
        BrokenSignature: the file is not a signed statement, or none of the keys signed it.
    """
    payload, signature = _open(path)
    signer = next((key for key in keys if key.verifies(signature, _authenticated(payload))), None)
    if signer is None:
        raise BrokenSignature(f"{path.name} is signed by none of the {len(keys)} trusted keys, or was changed since")
    return _parse(path, payload), signer


def unverified(path: Path) -> Statement:
    """Return a statement without checking its signature: use it only to see which bytes the statement is about.

    Raises:
        BrokenSignature: the file is not a signed statement.
    """
    return _parse(path, _open(path)[0])


def _open(path: Path) -> tuple[bytes, bytes]:
    """Return the payload and the signature of a bundle, which must have exactly the expected form."""
    try:
        bundle = read_json(path)
        envelope = bundle["dsseEnvelope"]
        (signature,) = envelope["signatures"]
        if (bundle["mediaType"], envelope["payloadType"]) != (BUNDLE_TYPE, PAYLOAD_TYPE):
            raise BrokenSignature(f"{path.name} should be a Sigstore bundle v0.3 with an in-toto statement: it is not")
        return tuple(base64.b64decode(each, validate=True) for each in (envelope["payload"], signature["sig"]))  # type: ignore[return-value]
    except (ArtefactError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        raise BrokenSignature(f"{path.name} should be a Sigstore bundle with one signature: it is not") from None


def _parse(path: Path, payload: bytes) -> Statement:
    try:
        content = parse_json(payload, where=path.name)
        if content["_type"] != STATEMENT_TYPE or not isinstance(content["predicate"], dict):
            raise BrokenSignature(f"{path.name} should hold an in-toto statement v1, found {content['_type']!r:.80}")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BrokenSignature(f"{path.name} should hold an in-toto statement as its payload: it does not") from None
    return dict(content)


def _authenticated(payload: bytes) -> bytes:
    """Return the pre-authentication encoding (DSSE v1), which signs the payload's type and length too."""
    kind = PAYLOAD_TYPE.encode()
    return b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload])


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
