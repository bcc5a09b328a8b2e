"""Serial numbers and key digests as people write them, and their one normal form (torch-free).

A revocation that is spelled differently from what it revokes would revoke nothing. So every spelling with one meaning
is accepted (upper case, white space, separators, a prefix, base64, full-width digits); everything else is an error.
"""

import base64
import binascii
import hashlib
import re
import unicodedata

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from prosocial.core.errors import InputError
from prosocial.core.signing.keys import TrustedKey

SERIAL_BYTES, DIGEST_BYTES = 16, 32
LONGEST_SPELLING = 256  # characters
_PREFIX = re.compile(r"^(?:sha-?256[:=(]?|0x)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[:\-()]")


def serial_number(text: str) -> str:
    """Return a serial number as 32 lower-case hex digits.

    Raises:
        InputError: the text is not a serial number.

    Examples:
        >>> serial_number(" 01234567-89AB-CDEF-0123-456789ABCDEF")
        '0123456789abcdef0123456789abcdef'
    """
    return _hex(text, SERIAL_BYTES, what="a serial number", advice="prosocial config show prints it")


def key_digest(text: str) -> str:
    """Return a digest of a public key as 64 lower-case hex digits.

    Raises:
        InputError: the text is not a SHA-256 digest; a beginning of one is not enough.

    Examples:
        >>> key_digest("SHA256:" + "AB:" * 31 + "AB") == "ab" * 32
        True
    """
    return _hex(text, DIGEST_BYTES, what="a key digest", advice="revoke with prosocial config revoke --key KEY.pub")


def key_digests(key: TrustedKey) -> frozenset[str]:
    """Return the digests that name a key: the SHA-256 of its PEM text (our `hint`) and of its DER form (openssl's)."""
    der = key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return frozenset({key.hint, hashlib.sha256(der).hexdigest()})


def _hex(text: str, n_bytes: int, *, what: str, advice: str) -> str:
    plain = (
        ""
        if len(text) > LONGEST_SPELLING
        else "".join(
            each
            for each in unicodedata.normalize("NFKC", text)
            if not each.isspace() and unicodedata.category(each) not in ("Cc", "Cf")
        )
    )
    plain = _PREFIX.sub("", plain)
    digits = _SEPARATORS.sub("", plain).lower()
    if re.fullmatch(f"[0-9a-f]{{{2 * n_bytes}}}", digits):
        return digits
    with_padding = plain.replace("-", "+").replace("_", "/").rstrip("=") + "=" * (-len(plain.rstrip("=")) % 4)
    try:
        raw = base64.b64decode(with_padding.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) != n_bytes:
        raise InputError(f"{what} should have {2 * n_bytes} hex digits, found {text!r:.80}; {advice}")
    return raw.hex()
