"""Files that can run code when they are loaded, whatever their name: pickles, archives, HDF5 and NumPy files."""

import pickletools
import re
import sys
import unicodedata
import zipfile
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# The starts of files that may hold pickles; no artefact of this package has one of them.
STARTS = {
    b"PK\x03\x04": "an archive (ZIP)",
    b"\x93NUMPY": "a NumPy file",
    b"\x1f\x8b\x08": "an archive (gzip)",
    b"\xfd7zXZ\x00": "an archive (xz)",
    b"7z\xbc\xaf\x27\x1c": "an archive (7z)",
    b"Rar!\x1a\x07": "an archive (RAR)",
    b"\x28\xb5\x2f\xfd": "an archive (Zstandard)",
    b"\x04\x22\x4d\x18": "an archive (LZ4)",
    b"\x5d\x00\x00\x80\x00\xff\xff": "an archive (LZMA)",
}
BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
HDF5, HDF5_OFFSETS = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048, 4096)
TAR, TAR_OFFSET = b"ustar", 257
HEAD_BYTES = 1 << 13
ZLIB_STARTS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
RUNS = ("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD")  # opcodes that call what a pickle names
NAMES = ("GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
NAME = re.compile(r"[A-Za-z_][\w.]*")
MODULES = frozenset(sys.stdlib_module_names) | {"__builtin__", "torch", "numpy", "joblib", "sklearn", "pandas"}
MOST_OPERATIONS = 1_000_000


def pickle_kind(path: Path) -> str | None:
    """Return what a file is if it is a pickle or may hold one, else None.

    A pickle need not be complete: what it names runs before the error at its end.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        kind = _by_head(head)
        if kind is None and zipfile.is_zipfile(stream):
            kind = "an archive (ZIP)"  # the directory of a ZIP stands at its end, so that bytes may precede it
        if kind is None:
            stream.seek(0)
            kind = "a pickle" if _is_pickle(stream, is_text=_is_text(head)) else None
    return kind


def is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle, or an archive or another container that may hold one, whatever its name."""
    return pickle_kind(path) is not None


def _by_head(head: bytes) -> str | None:
    named = next((kind for start, kind in STARTS.items() if head.startswith(start)), None)
    if named is not None:
        return named
    if BZIP2.match(head):
        return "an archive (bzip2)"
    if any(head[at : at + len(HDF5)] == HDF5 for at in HDF5_OFFSETS):
        return "an HDF5 file"
    if head[TAR_OFFSET : TAR_OFFSET + len(TAR)] == TAR:
        return "an archive (tar)"
    if head.startswith(ZLIB_STARTS):
        try:
            return "an archive (zlib)" if len(zlib.decompressobj().decompress(head, 1024)) > 0 else None
        except zlib.error:
            return None
    return None


def _is_text(head: bytes) -> bool:
    """Return whether bytes are UTF-8 without control characters; a character cut off at their end does not count."""
    try:
        text = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(unicodedata.category(character) == "Cc" and character not in "\t\n\r" for character in text)


def _is_pickle(stream: BinaryIO, *, is_text: bool) -> bool:
    """Whether the unpickler would run, import or finish something; follows its stack, so that prose is no pickle.

    Of text, an import alone does not count: the word list `cast, the` reads like one of `ast`.
    """
    stack: list[str] = []
    names_something, has_protocol, number = False, False, 0
    try:
        for number, (operation, argument) in enumerate(_operations(stream), start=1):
            has_protocol = has_protocol or (number == 1 and operation.name == "PROTO")
            if operation.name == "STOP":
                return bool(stack) and (has_protocol or not stream.read(64).strip())
            if not _fits(operation, stack) or number > MOST_OPERATIONS:
                return False
            if operation.name in RUNS and (names_something or operation.name == "INST"):
                return True
            if operation.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                if not (NAME.fullmatch(module) and NAME.fullmatch(name)):
                    return False
                if module.split(".")[0] in MODULES and not is_text:
                    return True  # the import alone may run code
            names_something = names_something or operation.name in NAMES
    except (ValueError, EOFError, OverflowError, MemoryError):
        return names_something and has_protocol
    return False


def _operations(stream: BinaryIO) -> Iterator[tuple[Any, Any]]:
    return ((operation, argument) for operation, argument, _ in pickletools.genops(stream))


def _fits(operation: Any, stack: list[str]) -> bool:
    """Apply an opcode to the stack of names of what stands there; return whether the stack holds what it takes."""
    before = [each.name for each in operation.stack_before]
    if "mark" in before:
        if "mark" not in stack:
            return False
        while stack.pop() != "mark":
            pass
        before = before[: before.index("mark")]
    if len(stack) < len(before):
        return False
    del stack[len(stack) - len(before) :]
    stack += [each.name for each in operation.stack_after]
    return True
