"""Download of an artefact from the Hub: only the files needed, and verified before anything is returned."""

import glob
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, HubError, StorageError
from prosocial.core.signing.envelope import BrokenSignature
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import (
    SIGNATURE_FILE,
    STATEMENTS_FOLDER,
    FolderDigest,
    check_signature,
)
from prosocial.steering.authorisation.delegation import DELEGATION_FILE

from ..bundle_files.manifest import MANIFEST_FILE, compare_manifest, read_manifest
from ..bundle_files.signature import check_signed
from ..bundle_files.verified import VerifiedFiles
from .client import HubClient, RemoteState
from .files import PlannedFile
from .screening import BINARY_SUFFIXES, TEXT_SUFFIXES

SHOWN = 3
SUFFIXES = (*TEXT_SUFFIXES, *BINARY_SUFFIXES)
MARKS = (MANIFEST_FILE, "config.json", "adapter_config.json")  # every artefact has one of them


def download(
    name: str,
    *,
    revision: str | None = None,
    keys: Sequence[TrustedKey] = (),
    cache: Path | str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    is_bundle: bool = False,
) -> Path:
    """Download an artefact into the client's cache, verify it, and return its folder.

    For a bundle, only the files that its manifest lists and its statement of delegated keys are downloaded; for other
    artefacts, all files of known types. Every file is compared with the digests that the Hub lists, and a bundle also
    with its manifest. If `HF_HUB_OFFLINE` is set, the copy in the cache is verified and returned.

    Args:
        name: repository, `ORG/NAME`.
        revision: branch, tag or commit; None for the head of the default branch.
        keys: trusted public keys; if there are any, one of them must have signed the artefact, and every statement
            about it (edit, export, parity, audit) must be signed by one of them and report no failure.
        cache: cache folder of the client; None for its default.
        endpoint: address of the Hub, see `HubClient.connect`.
        token: token for the Hub, see `HubClient.connect`.
        is_bundle: refuse artefacts that are not bundles.

    Raises:
        HubError: the Hub refuses, or has no such repository or revision.
        ArtefactError: a digest, signature or statement does not match; nothing was loaded.
        StorageError: there is not enough disk space.
    """
    from huggingface_hub import is_offline_mode

    cache = None if cache is None else Path(cache)
    hub = HubClient.connect(name, endpoint=endpoint, token=token)
    if is_offline_mode():
        fetch = _Fetch(hub, None, _cached(hub, revision, cache, MARKS), cache, revision)
    else:
        state = hub.look(revision)
        if state is None:
            raise HubError(
                f"there is no repository {name}, or it is private: check the name, or log in with `hf auth login`"
            )
        fetch = _Fetch(hub, state, Path(), cache, revision)
    return fetch.bundle(keys) if is_bundle or fetch.has(MANIFEST_FILE) else fetch.everything(keys)


class _Fetch:
    """A download in progress.

    Args:
        hub: the repository.
        state: state of the repository; None in offline mode.
        folder: folder of the files downloaded so far.
        cache: cache folder of the client; None for its default.
        revision: the requested revision, so that the client's cache remembers which commit it meant.
    """

    def __init__(
        self, hub: HubClient, state: RemoteState | None, folder: Path, cache: Path | None, revision: str | None
    ) -> None:
        self._hub, self._state, self._folder, self._cache, self._revision = hub, state, folder, cache, revision

    def has(self, path: str) -> bool:
        return path in self._state.files if self._state else (self._folder / path).is_file()

    def bundle(self, keys: Sequence[TrustedKey]) -> Path:
        """Download a bundle: manifest and signatures first, so that an untrusted bundle is refused early."""
        if not self.has(MANIFEST_FILE):
            raise ArtefactError(
                f"{self._hub.name} should be a bundle with {MANIFEST_FILE}, it holds none: choose another repository"
            )
        first = [MANIFEST_FILE, *(self._signatures() if keys else self._named_keys())]
        folder = self._fetch(first)
        self._require_whole(first)
        listed = {path: entry["sha256"] for path, entry in read_manifest(folder)["files"].items()}
        if keys:
            own = PlannedFile.of(MANIFEST_FILE, folder / MANIFEST_FILE).sha256
            check_signed(folder, listed | {MANIFEST_FILE: own}, keys)
        missing = sorted(path for path in listed if not self.has(path))
        if missing:
            raise ArtefactError(
                f"{self._hub.name} should hold what its manifest lists, {missing[0]} is missing: tell its owner"
            )
        self._fetch([*first, *listed])
        self._require_whole(compare_manifest(folder).changed)
        VerifiedFiles.open(folder).require_bound()
        return folder

    def everything(self, keys: Sequence[TrustedKey]) -> Path:
        """Download all files of the types that an artefact may have."""
        paths = [path for path in self._state.files if _may_come(path)] if self._state else []
        if self._state is None:
            _cached(self._hub, self._revision, self._cache, [f"*{suffix}" for suffix in SUFFIXES if suffix])
        folder = self._fetch(paths)
        self._require_whole(paths)
        if keys:
            actual = FolderDigest.of(folder)
            try:
                check_signature(folder, actual, keys)
            except BrokenSignature as broken:
                raise ArtefactError(f"{self._hub.name} should be signed by a trusted key: {broken}") from None
            check_signed(folder, actual.files, keys)
        return folder

    def _signatures(self) -> list[str]:
        if not self.has(SIGNATURE_FILE):
            raise ArtefactError(
                f"{self._hub.name} should be signed, it holds no {SIGNATURE_FILE}: omit the keys to accept it unsigned"
            )
        names = self._state.files if self._state else ()
        return [SIGNATURE_FILE, *(path for path in names if path.startswith(f"{STATEMENTS_FOLDER}/"))]

    def _named_keys(self) -> list[str]:
        """Return the path of the bundle's delegation, if it has one; it has no effect unless its signer is trusted."""
        return [DELEGATION_FILE] if self.has(DELEGATION_FILE) else []

    def _fetch(self, paths: Collection[str]) -> Path:
        if self._state is not None:
            self._require_room(paths)
            self._folder = self._hub.ask("fetching", lambda: Path(self._snapshot(paths)), is_patient=False)
            if self._folder.name != self._state.commit:
                raise HubError(f"somebody committed to {self._hub.name} during the download: run this again")
        return self._folder

    def _require_whole(self, paths: Collection[str]) -> None:
        """Compare files with the Hub's listing, and delete those that differ from the cache."""
        wrong = [path for path in paths if self._state is not None and not self._is_whole(path)]
        for path in wrong:
            (self._folder / path).resolve().unlink(missing_ok=True)
            (self._folder / path).unlink(missing_ok=True)
        if wrong:
            raise ArtefactError(
                f"{self._hub.name} should match the Hub's listing, {', '.join(wrong[:SHOWN])} came with other bytes: "
                "nothing was loaded; download it again"
            )

    def _is_whole(self, path: str) -> bool:
        local = self._folder / path
        return (
            local.is_file() and self._state is not None and PlannedFile.of(path, local).is_at(self._state.files[path])
        )

    def _snapshot(self, paths: Collection[str]) -> str:
        from huggingface_hub import snapshot_download

        return snapshot_download(
            self._hub.name,
            revision=self._revision,
            cache_dir=self._cache,
            endpoint=self._hub.api.endpoint,
            token=self._hub.api.token,
            allow_patterns=[glob.escape(path) for path in paths],
        )

    def _require_room(self, paths: Collection[str]) -> None:
        """Check the free disk space before the download."""
        from huggingface_hub import constants

        assert self._state is not None
        place = self._cache or Path(constants.HF_HUB_CACHE)
        there = next(folder for folder in (place, *place.resolve().parents) if folder.is_dir())
        absent = [path for path in paths if not (self._folder / path).is_file()]
        needed, free = sum(self._state.files[path].size_bytes for path in absent), shutil.disk_usage(there).free
        if needed > free:
            raise StorageError(
                f"{self._hub.name} needs {needed:,} bytes at {place}, only {free:,} are free: free disk space"
            )


def _cached(hub: HubClient, revision: str | None, cache: Path | None, patterns: Collection[str]) -> Path:
    """Return the snapshot in the cache, which must contain all files of these patterns."""
    from huggingface_hub import snapshot_download

    def ask() -> Any:
        return snapshot_download(
            hub.name, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=list(patterns)
        )

    return Path(hub.ask("looking into the cache", ask))


def _may_come(path: str) -> bool:
    """Return whether a file has a type that artefacts may have, which excludes code and pickles."""
    return not any(part.startswith(".") for part in path.split("/")) and Path(path).suffix in SUFFIXES
