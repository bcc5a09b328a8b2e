"""A revocation takes effect however it is spelled, what names nothing refuses the file, and none is lost."""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from prosocial.cli.main import main
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.signing import TrustedKey
from prosocial.steering.authorisation.trust import TrustFile, TrustStore, revoke_in

from ...signing_helpers import make_key

SERIAL = "0123456789abcdef0123456789abcdef"
Spelling = Callable[[str], str]


def full_width(digits: str) -> str:
    return "".join(chr(ord(each) + 0xFEE0) for each in digits)


def in_pairs(separator: str) -> Spelling:
    return lambda digits: separator.join(digits[at : at + 2] for at in range(0, len(digits), 2))


def in_base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


SPELLINGS: dict[str, Spelling] = {
    "as it is": str,
    "upper case": str.upper,
    "mixed case": str.title,
    "blank before": lambda digits: " " + digits,
    "blank after": lambda digits: digits + " ",
    "new line after": lambda digits: digits + "\n",
    "carriage return after": lambda digits: digits + "\r\n",
    "tab and no-break space": lambda digits: f"\t{digits}\u00a0",
    "ideographic space": lambda digits: f"\u3000{digits}",
    "byte order mark": lambda digits: f"\ufeff{digits}",
    "zero-width space inside": lambda digits: f"{digits[:5]}\u200b{digits[5:]}",
    "soft hyphen inside": lambda digits: f"{digits[:5]}\u00ad{digits[5:]}",
    "control character": lambda digits: f"{digits}\x00",
    "with colons": in_pairs(":"),
    "with hyphens": in_pairs("-"),
    "with blanks": in_pairs(" "),
    "in brackets": lambda digits: f"({digits})",
    "0x": lambda digits: f"0x{digits}",
    "0X and upper case": lambda digits: f"0X{digits.upper()}",
    "full-width digits": full_width,
    "mathematical digits": lambda digits: digits.replace("0", "\U0001d7ce"),
    "base64": in_base64,
    "base64 without padding": lambda digits: in_base64(digits).rstrip("="),
    "base64 for URLs": lambda digits: in_base64(digits).replace("+", "-").replace("/", "_"),
}
NONSENSE: dict[str, Spelling] = {
    "a word": lambda _: "nonsense",
    "nothing": lambda _: "",
    "blanks only": lambda _: "  ",
    "one digit less": lambda digits: digits[:-1],
    "one digit more": lambda digits: digits + "0",
    "half": lambda digits: digits[: len(digits) // 2],
    "the first 8 digits": lambda digits: digits[:8],
    "twice": lambda digits: digits * 2,
    "two in one": lambda digits: f"{digits},{digits}",
    "a letter beyond f": lambda digits: "g" + digits[1:],
    "the letter O for 0": lambda digits: "O" + digits[1:],
    "a Cyrillic a": lambda digits: digits.replace("a", "\u0430"),
    "a decimal number": lambda digits: str(int(digits, 16)),
    "a wildcard": lambda digits: digits[:-1] + "*",
    "a path": lambda digits: f"./{digits}.json",
    "quotes": lambda digits: f'"{digits}"',
    "a minus sign": lambda digits: f"\u2212{digits}",
    "a lone surrogate": lambda digits: digits[:-1] + "\ud800",
    "a megabyte": lambda digits: digits * 40_000,
    "base64 of the text": lambda digits: base64.b64encode(digits.encode()).decode(),
    "base32": lambda digits: base64.b32encode(bytes.fromhex(digits)).decode(),
    "a part in base64": lambda digits: in_base64(digits)[:16],
}


@pytest.fixture
def own(tmp_path: Path) -> TrustedKey:
    make_key(tmp_path, "own")
    return TrustedKey.read(tmp_path / "own.pub")


def write(folder: Path, **changes: Any) -> Path:
    scope = {"key": "own.pub", "allowed": ["violence"], "highest_threshold": 0.25}
    path = folder / "trust.json"
    path.write_text(json.dumps({"schema": "prosocial.trust/1", "keys": {"own": scope}} | changes))
    return path


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_revocation_holds_however_it_is_spelled(own: TrustedKey, tmp_path: Path, spelling: Spelling) -> None:
    lists = {"revoked_serials": [spelling(SERIAL)], "revoked_keys": [spelling(own.hint)]}
    store = TrustStore.read([write(tmp_path, **lists)])
    assert store.revoked_serials == {SERIAL} and store.has_revoked(own)


@pytest.mark.parametrize("prefix", ["sha256:", "SHA256:", "sha-256 "])
def test_a_digest_may_name_its_function(own: TrustedKey, tmp_path: Path, prefix: str) -> None:
    assert TrustStore.read([write(tmp_path, revoked_keys=[prefix + own.hint])]).has_revoked(own)


def test_the_digest_that_openssl_shows_revokes_too(own: TrustedKey, tmp_path: Path) -> None:
    der = own.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert TrustStore.read([write(tmp_path, revoked_keys=[hashlib.sha256(der).hexdigest()])]).has_revoked(own)


@pytest.mark.parametrize("spelling", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("field", ["revoked_serials", "revoked_keys"])
def test_what_revokes_nothing_refuses_the_file(own: TrustedKey, tmp_path: Path, field: str, spelling: Spelling) -> None:
    path = write(tmp_path, **{field: [SERIAL if field == "revoked_serials" else own.hint]})
    assert TrustStore.read([path]).keys, "the control: a proper entry is accepted"
    value = spelling(SERIAL if field == "revoked_serials" else own.hint)
    with pytest.raises(ArtefactError, match=rf"{field}.1: .*hex digits|half a character") as refused:
        TrustStore.read([write(tmp_path, **{field: ["ab" * (16 if field == "revoked_serials" else 32), value]})])
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("value", [None, SERIAL, {SERIAL: True}, [None], [1], [[SERIAL]], True])
@pytest.mark.parametrize("field", ["revoked_serials", "revoked_keys"])
def test_a_list_of_another_type_refuses_the_file(own: TrustedKey, tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(ArtefactError, match=field):
        TrustStore.read([write(tmp_path, **{field: value})])


@pytest.mark.parametrize("field", ["revoked_serial", "Revoked_serials", "revokedSerials", "revoked-keys", "revoked"])
def test_a_misspelled_list_refuses_the_file(own: TrustedKey, tmp_path: Path, field: str) -> None:
    with pytest.raises(ArtefactError, match=field):
        TrustStore.read([write(tmp_path, **{field: [SERIAL]})])


def test_the_command_revokes_what_was_meant_or_nothing(own: TrustedKey, tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    assert main(["config", "revoke", str(path), "--serial", "nonsense"]) == 2 and path.read_bytes() == before
    assert main(["config", "revoke", str(path), "--serial", SERIAL, "--serial", "x"]) == 2
    assert path.read_bytes() == before
    assert main(["config", "revoke", str(path), "--serial", f" {SERIAL.upper()} "]) == 0
    assert TrustFile.read(path).revoked_serials == [SERIAL]


REVOKE = """
import sys
from pathlib import Path
from prosocial.cli.main import main
sys.stdin.readline()
path = Path(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    assert main(["config", "revoke", str(path), "--serial", f"{number:032x}", "--json"]) == 0
"""


def test_twenty_processes_that_revoke_at_once_lose_nothing(own: TrustedKey, tmp_path: Path) -> None:
    path, each = write(tmp_path), 3
    (tmp_path / "link").mkdir()
    link = tmp_path / "link" / "trust.json"
    link.symlink_to(path)
    started = []
    for number in range(20):
        words = [sys.executable, "-c", REVOKE, str(link if number % 2 else path), str(each * number)]
        words.append(str(each * (number + 1)))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        started.append(subprocess.Popen(words, **pipes))
    for process in started:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait() for process in started] == [0] * 20
    for process in started:
        process.stdin.close()
    found = TrustFile.read(path)
    assert found.revoked_serials == [f"{number:032x}" for number in range(20 * each)] and set(found.keys) == {"own"}
    assert link.is_symlink() and not list(tmp_path.glob(".*"))


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file"):
        revoke_in(tmp_path / "trust.json", serials=[SERIAL])
    assert not list(tmp_path.iterdir())


def test_a_malformed_serial_is_an_error_of_the_function_too(own: TrustedKey, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32 hex digits"):
        revoke_in(write(tmp_path), serials=[SERIAL[:-1]])
