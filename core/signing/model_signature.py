"""`model.sig`: the signature over every file of a folder, as the OpenSSF model signing specification v1.0 writes it.

`model_signing verify key` accepts it. Not signed are the signature itself, `signatures/` (statements about the signed
bytes, added later and signed one by one), and what git and download clients put beside a model.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
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
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FolderDigest:
    """The digest of a folder: SHA-256 over the SHA-256 digests of its files, in the order of their names.

    Attributes:
        name: of the folder.
        files: SHA-256 by relative path (with `/`), sorted.
    """

    name: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> "FolderDigest":
        """Read every file that a signature covers.

        Raises:
            ArtefactError: there is no such folder or nothing in it, or it holds a link to another folder, whose files
                nobody would see.
        """
        if not folder.is_dir():
            raise ArtefactError(f"expected a folder at {folder}: there is none")
        found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
        covered = {name: path for name, path in found if name.split("/")[0] not in IGNORED}
        links = [name for name, path in covered.items() if path.is_symlink() and path.is_dir()]
        if links:
            raise ArtefactError(f"{folder} should hold its files itself, {links[0]} links to another folder: copy it")
        files = {name: sha256_file(path) for name, path in covered.items() if path.is_file()}
        if not files:
            raise ArtefactError(f"{folder} should hold files to sign: there are none")
        return cls(folder.resolve().name, files)

    @property
    def root(self) -> str:
        """The one digest that stands for all files."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.files.values()))).hexdigest()

    @property
    def subject(self) -> dict[str, Any]:
        """The folder as the subject of a statement."""
        return {"name": self.name, "digest": {"sha256": self.root}}


def write_signature(folder: Path, found: FolderDigest, key: SigningKey) -> None:
    """Sign a folder whose files were read."""
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": list(IGNORED),
    }
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in found.files.items()]
    said = statement(PREDICATE_TYPE, [found.subject], {"serialization": serialization, "resources": resources})
    seal(folder / SIGNATURE_FILE, said, key)


def check_signature(folder: Path, found: FolderDigest, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Hold a folder against its signature and return the key that signed it.

    A file that was not signed is as wrong as one that was changed, also where the signature says that it leaves it out.

    Raises:
        BrokenSignature: it is not what one of the keys signed; names the files.
    """
    said, signer = unseal(folder / SIGNATURE_FILE, keys)
    listed = signed_files(said)
    wrong = [f"{name} is missing" for name in listed if name not in found.files]
    wrong += [f"{name} was not signed" for name in found.files if name not in listed]
    wrong += [f"{name} was changed" for name, digest in listed.items() if found.files.get(name, digest) != digest]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BrokenSignature(f"the folder is not what was signed: {'; '.join(wrong[:5])}{more}")
    return signer


def signed_files(said: Statement) -> dict[str, str]:
    """Return the digests by file that a signature states.

    Raises:
        BrokenSignature: it is of another form, or contradicts itself.
    """
    try:
        serialization = said["predicate"]["serialization"]
        forms = said["predicateType"], serialization["method"], serialization["hash_type"]
        if forms != (PREDICATE_TYPE, "files", "sha256"):
            raise BrokenSignature(f"{SIGNATURE_FILE}: should sign files by SHA-256 ({PREDICATE_TYPE}), found {forms}")
        entries = [(each["name"], each["algorithm"], each["digest"]) for each in said["predicate"]["resources"]]
        (subject,) = said["subject"]
        files = {name: digest for name, algorithm, digest in entries if algorithm == "sha256"}
        sound = len(files) == len(entries) and all(_DIGEST.fullmatch(digest) for digest in files.values())
        if not sound or FolderDigest("", files).root != subject["digest"]["sha256"]:
            raise BrokenSignature(f"{SIGNATURE_FILE}: its digests do not make the one that was signed")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokenSignature(f"{SIGNATURE_FILE}: should follow model signing v1.0, it does not") from None
    return files
