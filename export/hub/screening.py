"""Screening of files before publication: pickles, code and secrets are refused, local paths are reported."""

import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints.header import read_header

TEXT_SUFFIXES = (".json", ".jinja", ".md", ".txt", ".sig", ".sigstore", ".tiktoken", "")
BINARY_SUFFIXES = (".safetensors", ".onnx", ".data", ".onnx_adapter", ".model")
NAMES_WITHOUT_SUFFIX = ("LICENSE", "NOTICE")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an Anthropic key": r"\bsk-ant-[A-Za-z0-9_-]{20,}",
    "an OpenAI key": r"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,}",
    "a GitHub token": r"\b(?:gh[opsru]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\bhttps?://[^\s/:@\"']+:[^\s/@\"']+@",
}
LOCAL_PATH = re.compile(r"(?:/(?:home|Users|root|tmp|mnt|scratch|workspace)/|\b[A-Za-z]:\\{1,2}Users\\)[^\s\"'<>|]+")
_SECRETS = re.compile("|".join(f"(?P<s{at}>{pattern})" for at, pattern in enumerate(SECRETS.values())))


def screen(folder: Path, paths: Iterable[str]) -> list[str]:
    """Return one line per file that must not be published, with the reason.

    Args:
        folder: the folder.
        paths: paths of its files, relative to the folder.
    """
    return [line for path in paths for line in _refusals(folder / path, path)]


def local_paths(text: str) -> list[str]:
    """Return the local paths in a text, such as those in a home folder.

    Examples:
        >>> local_paths('{"_name_or_path": "/home/ada/base", "license": "mit"}')
        ['/home/ada/base']
    """
    return sorted({match[0] for match in LOCAL_PATH.finditer(text)})


def secrets_in(text: str) -> list[str]:
    """Return the kinds of secrets in a text, never the secrets themselves.

    Examples:
        >>> secrets_in("-----BEGIN PRIVATE KEY-----")
        ['a private key']
    """
    kinds = list(SECRETS)
    indices = {int(str(match.lastgroup)[1:]) for match in _SECRETS.finditer(text)}
    return [kinds[at] for at in sorted(indices)]


def read_text(path: Path) -> str:
    """Return a file as text, with invalid UTF-8 replaced."""
    return path.read_bytes().decode("utf-8", errors="replace")


def _refusals(path: Path, name: str) -> Iterator[str]:
    if path.is_symlink():
        yield f"{name} is a link: copy the file into the folder"
    elif is_pickle(path):
        yield f"{name} is a pickle, which can run code when it is loaded: save it as safetensors"
    elif not _is_expected(path):
        yield f"{name} has a file type that no artefact has: remove it from the folder"
    elif path.suffix == ".safetensors":
        try:
            read_header(path)
        except ArtefactError as broken:
            yield f"{name} is not a valid safetensors file: {broken}"
    elif path.suffix in TEXT_SUFFIXES:
        for kind in secrets_in(read_text(path)):
            yield f"{name} holds {kind}: remove it, and revoke it"


def _is_expected(path: Path) -> bool:
    if not path.suffix:
        return path.name in NAMES_WITHOUT_SUFFIX
    return path.suffix in TEXT_SUFFIXES or path.suffix in BINARY_SUFFIXES


def is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle, or a ZIP archive that may contain one, whatever its name."""
    with path.open("rb") as stream:
        start = stream.read(2)
        if start == b"PK" and zipfile.is_zipfile(path):
            return True
        if start not in PICKLE_STARTS:
            return False
        stream.seek(0)
        try:
            return any(operation.name == "STOP" for operation, _, _ in pickletools.genops(stream))
        except (ValueError, UnicodeDecodeError):  # binary data that begins like a pickle
            return False
