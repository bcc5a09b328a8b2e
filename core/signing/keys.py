"""EC P-256 keys in PEM files, as `openssl ecparam -name prime256v1 -genkey -noout` writes them."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..errors import InputError

PASSWORD_VARIABLE = "PROSOCIAL_KEY_PASSWORD"
CURVE = "secp256r1"
MAKE_ONE = "make one with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
TAKE_PUBLIC = "take it with: openssl ec -in key.pem -pubout -out key.pub"
_log = logging.getLogger("prosocial.keys")  # without a handler, so that a warning reaches standard error


@dataclass(frozen=True)
class TrustedKey:
    """A public key that the caller trusts.

    Attributes:
        name: name of the key's file, for reports.
        key: the EC P-256 public key.
    """

    name: str
    key: ec.EllipticCurvePublicKey

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a public key from a PEM file.

        Raises:
            InputError: the file is missing, or does not hold an EC P-256 public key in PEM.
        """
        path = Path(path)
        return cls(path.name, cls.parse(str(path), _bytes(path, TAKE_PUBLIC)).key)

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Self:
        """Return the public key in a PEM text; `name` is for messages and reports.

        Raises:
            InputError: the text does not hold an EC P-256 public key.
        """
        try:
            key = load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm):
            raise InputError(f"{name} should hold a public key in PEM: it does not; {TAKE_PUBLIC}") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != CURVE:
            raise InputError(f"{name} should hold an EC P-256 public key, found {_kind(key)}; {MAKE_ONE}")
        return cls(name, key)

    @property
    def pem(self) -> bytes:
        """The key as PEM text."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def hint(self) -> str:
        """The hex SHA-256 of the PEM text, by which a signature names its key."""
        return hashlib.sha256(self.pem).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key made the signature (ECDSA with SHA-256, in DER) over the message."""
        try:
            self.key.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private EC P-256 key, which signs and is never written anywhere."""

    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a private key from a PEM file; an encrypted one needs its password in `PROSOCIAL_KEY_PASSWORD`.

        Raises:
            InputError: the file is missing, does not hold an EC P-256 private key in PEM, or the password is missing or
                wrong.
        """
        raw, password = _bytes(Path(path), MAKE_ONE), os.environ.get(PASSWORD_VARIABLE)
        mode = Path(path).stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o077 and b"ENCRYPTED" not in raw:
            _log.warning("warning: %s can be read by other users (mode %o): chmod 600 %s", path, mode, path)
        try:
            key = load_pem_private_key(raw, password.encode() if password and b"ENCRYPTED" in raw else None)
        except TypeError:
            raise InputError(f"{path} is encrypted: give its password in the variable {PASSWORD_VARIABLE}") from None
        except (ValueError, UnsupportedAlgorithm):
            reason = "does not open with that password" if b"ENCRYPTED" in raw else f"holds no private key; {MAKE_ONE}"
            raise InputError(f"{path} should hold a private key in PEM: it {reason}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != CURVE:
            raise InputError(f"{path} should hold an EC P-256 private key, found {_kind(key)}; {MAKE_ONE}")
        return cls(key)

    @property
    def public(self) -> TrustedKey:
        """The public key of this private key."""
        return TrustedKey("own", self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature over a message (ECDSA with SHA-256, in DER)."""
        return self.key.sign(message, ec.ECDSA(SHA256()))


def _bytes(path: Path, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"expected a key at {path}: there is none; {advice}") from None
    except (OSError, ValueError) as error:  # a name that no file can have, a folder, no permission
        raise InputError(
            f"expected a key at {path}: it cannot be read ({getattr(error, 'strerror', None) or error}); {advice}"
        ) from None


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.lstrip("_").removesuffix("PublicKey").removesuffix("PrivateKey")
