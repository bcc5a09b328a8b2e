"""`model.sig`: a signature over all files of a folder, in the format of the OpenSSF model signing specification v1.0.

`model_signing verify key` accepts it. The signature does not cover itself, `signatures/` (statements about the signed
bytes, which are added later and have signatures of their own), and the files that git and download clients add.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtefactError
from ..files import sha256_file
from .envelope import BrokenSignature, Statement, seal, statement, unseal
from .keys import SigningKey, TrustedKey

SIGNATURE_FILE = "model.sig"
STATEMENTS_FOLDER = "signatures"
IGNORED = (".cache", ".git", ".gitattributes", ".github", ".gitignore", SIGNATURE_FILE, STATEMENTS_FOLDER)
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MADE = "prosocialStatements"  # not part of the specification, whose readers ignore it
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FolderDigest:
    """The digest of a folder: SHA-256 over the SHA-256 digests of its files, in the order of their names.

    Attributes:
        name: name of the folder.
        files: hex SHA-256 by relative path (with `/`), sorted by path.
    """

    name: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> "FolderDigest":
        """Read all files that a signature covers and return their digests.

        Raises:
            ArtefactError: the folder is missing or empty, or holds a link to another folder, whose files would not be
                signed.
        """
        if not folder.is_dir():
            raise ArtefactError(f"expected a folder at {folder}: there is none")
        paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
        covered = {name: path for name, path in paths if name.split("/")[0] not in IGNORED}
        links = [name for name, path in covered.items() if path.is_symlink() and path.is_dir()]
        if links:
            raise ArtefactError(f"{folder} should hold its files itself, {links[0]} links to another folder: copy it")
        files = {name: sha256_file(path) for name, path in covered.items() if path.is_file()}
        if not files:
            raise ArtefactError(f"{folder} should hold files to sign: there are none")
        return cls(folder.resolve().name, files)

    @property
    def root(self) -> str:
        """The digest over all files."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.files.values()))).hexdigest()

    @property
    def subject(self) -> dict[str, Any]:
        """The folder as the subject of an in-toto statement."""
        return {"name": self.name, "digest": {"sha256": self.root}}


def write_signature(folder: Path, actual: FolderDigest, key: SigningKey, *, statements: Collection[str] = ()) -> None:
    """Sign a folder and write `model.sig` into it.

    Args:
        folder: the folder.
        actual: digest of the folder's files.
        key: private key to sign with.
        statements: names of the statements in `signatures/`, so that removing one is noticed.
    """
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": list(IGNORED),
    }
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in actual.files.items()]
    predicate = {"serialization": serialization, "resources": resources, MADE: sorted(statements)}
    content = statement(PREDICATE_TYPE, [actual.subject], predicate)
    seal(folder / SIGNATURE_FILE, content, key)


def check_signature(folder: Path, actual: FolderDigest, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Compare a folder with its signature and return the key that signed it.

    A file that was not signed is an error like a changed one, even if the signature lists it as ignored.

    Args:
        folder: the folder, which holds `model.sig`.
        actual: digest of the folder's files.
        keys: keys that the caller trusts.

    Raises:
        BrokenSignature: the folder is not what one of the keys signed (the message names the files).
    """
    content, signer = unseal(folder / SIGNATURE_FILE, keys)
    listed = signed_files(content)
    wrong = [f"{name} is missing" for name in listed if name not in actual.files]
    wrong += [f"{name} was not signed" for name in actual.files if name not in listed]
    wrong += [f"{name} was changed" for name, digest in listed.items() if actual.files.get(name, digest) != digest]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BrokenSignature(f"the folder is not what was signed: {'; '.join(wrong[:5])}{more}")
    return signer


def signed_files(content: Statement) -> dict[str, str]:
    """Return the SHA-256 digests that a signature states, by file.

    Raises:
        BrokenSignature: the signature has another format, or its digests contradict each other.
    """
    try:
        serialization = content["predicate"]["serialization"]
        forms = content["predicateType"], serialization["method"], serialization["hash_type"]
        if forms != (PREDICATE_TYPE, "files", "sha256"):
            raise BrokenSignature(f"{SIGNATURE_FILE} should sign files by SHA-256 ({PREDICATE_TYPE}), found {forms}")
        entries = [(each["name"], each["algorithm"], each["digest"]) for each in content["predicate"]["resources"]]
        (subject,) = content["subject"]
        files = {name: digest for name, algorithm, digest in entries if algorithm == "sha256"}
        sound = len(files) == len(entries) and all(_DIGEST.fullmatch(digest) for digest in files.values())
        if not sound or FolderDigest("", files).root != subject["digest"]["sha256"]:
            raise BrokenSignature(f"{SIGNATURE_FILE} should state digests that combine to its subject's: they do not")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokenSignature(f"{SIGNATURE_FILE} should follow model signing v1.0: it does not") from None
    return files


def made_statements(content: Statement) -> frozenset[str]:
    """Return the names of the statements that were there when a folder was signed; empty for version 0.1.0.

    Raises:
        BrokenSignature: they are no list of names.
    """
    names = content["predicate"].get(MADE, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BrokenSignature(f"{SIGNATURE_FILE} should list names of statements, found {names!r:.80}")
    return frozenset(names)
