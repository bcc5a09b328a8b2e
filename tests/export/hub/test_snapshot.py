"""What comes from the Hub is whole and what it should be, or an error: nothing of it is opened before."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError, HubError, ProsocialError
from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.export import Bundle
from prosocial.export.bundle_files.manifest import read_manifest
from prosocial.export.hub import download
from prosocial.steering.authorisation.delegation import DELEGATION_FILE, delegate_keys
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.verify.signing import sign_folder

from ...hub.hub_fixture import Fault, LoopbackHub
from ...hub.loopback_hub.repository import Blob
from ...hub_helpers import NAME, bytes_of, make_folder, publish_folder
from ...signing_helpers import make_key, sign_payload

REQUESTS = ("info", "tree", "head", "file")
FAULTS = {
    "401": Fault.refused("*", 401),
    "403": Fault.refused("*", 403),
    "no revision": Fault.refused("*", 404, error_code="RevisionNotFound"),
    "no file": Fault.refused("*", 404, error_code="EntryNotFound"),
    "429": Fault.limited("*", retry_after=5, times=None),
    "drop": Fault.of("*", "drop"),
    "cut": Fault.of("*", "cut"),
}
LIMITED = """
import resource, sys
from prosocial.cli.main import error_line
from prosocial.export.hub import download
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    download("org/name")
except Exception as error:
    sys.exit(error_line(error))
"""


@pytest.fixture
def published(hub: LoopbackHub, tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "bundle")
    publish_folder(folder)
    hub.log.clear()
    return folder


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_only_what_the_manifest_lists_is_fetched_byte_for_byte(hub: LoopbackHub, published: Path) -> None:
    folder = download(NAME)
    listed = ("config.json", "decoding.json", "manifest.json", "model.onnx", "model.onnx.data")

    assert bytes_of(folder) == {name: (published / name).read_bytes() for name in listed}
    assert set(hub.log) == {*REQUESTS}
    hub.log.clear()
    assert download(NAME) == folder
    assert "file" not in hub.log  # it lies in the cache


def test_the_keys_that_a_bundle_names_come_with_it_with_and_without_keys_of_ones_own(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    folder, key = make_folder(tmp_path / "bundle"), SigningKey.read(make_key(tmp_path, "own"))
    make_key(tmp_path, "writer")
    scope = {"key": "writer.pub", "allowed": [], "highest_threshold": 0.0}
    (tmp_path / "keys.json").write_text(json.dumps({"schema": "prosocial.trust/1", "keys": {"writer": scope}}))
    named = folder / DELEGATION_FILE
    decoding, manifest = DecodingConfig.read(folder), read_manifest(folder)
    delegate_keys(tmp_path / "keys.json", named, key=key, decoding=decoding, manifest=manifest, valid_days=1)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    report = (folder / "signatures" / "parity.json").rename(tmp_path / "parity.json")
    sign_folder(folder, key, reports={"parity": report})
    publish_folder(folder, license=None)

    for number, keys in enumerate(((), (key.public,))):
        found = download(NAME, keys=keys, cache=tmp_path / str(number))
        assert (found / DELEGATION_FILE).read_bytes() == named.read_bytes()


@pytest.mark.parametrize("step", REQUESTS)
def test_whatever_goes_wrong_nothing_is_handed_on(hub: LoopbackHub, published: Path, tmp_path: Path, step: str) -> None:
    for name, found in FAULTS.items():
        if (step, name) == ("head", "cut"):
            continue  # there is no body to cut
        hub.faults = [Fault(step, found.kind, found.status, found.headers)]
        with pytest.raises(ProsocialError, match=NAME) as refused:
            Bundle.from_pretrained(NAME, cache=tmp_path / name)
        assert "\n" not in str(refused.value) and "tokenizer" not in str(refused.value), name
        assert not list((tmp_path / name).rglob("*.incomplete"))

        hub.faults = []
        whole = download(NAME, cache=tmp_path / name)
        assert bytes_of(whole)["model.onnx.data"] == (published / "model.onnx.data").read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx.data"])
def test_other_bytes_than_the_hub_lists_are_refused_and_do_not_stay(
    hub: LoopbackHub, published: Path, name: str
) -> None:
    listed = hub.repositories[NAME].commits[hub.repositories[NAME].head]
    first = "manifest.json" if name == "manifest.json" else "config.json"
    hub.faults = [Fault("file", "corrupt", skip=0 if name == first else 1)]
    with pytest.raises(ArtefactError, match="came with other bytes: nothing was loaded"):
        Bundle.from_pretrained(NAME)
    hub.faults = []

    assert bytes_of(download(NAME)).items() <= {path: blob.content for path, blob in listed.items()}.items()


def test_a_manifest_that_does_not_match_is_refused(hub: LoopbackHub, published: Path) -> None:
    repository = hub.repositories[NAME]
    files = dict(repository.commits[repository.head])
    repository.commit({"model.onnx": files["config.json"]}, ())
    with pytest.raises(ArtefactError, match=r"changed: model\.onnx"):
        Bundle.from_pretrained(NAME)
    repository.commit({}, ["model.onnx"])
    with pytest.raises(ArtefactError, match=r"model\.onnx is missing"):
        Bundle.from_pretrained(NAME)
    repository.commit({}, ["manifest.json"])
    with pytest.raises(ArtefactError, match=r"holds none"):
        Bundle.from_pretrained(NAME)


def test_a_revision_is_a_tag_or_a_commit_that_is_there(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    first = hub.repositories[NAME].head
    again = publish_folder(make_folder(tmp_path / "two", weights=b"\0two"))

    assert bytes_of(download(NAME, revision=first))["model.onnx.data"] == b"\0weights one"
    assert bytes_of(download(NAME, revision=again.tag))["model.onnx.data"] == b"\0two"
    with pytest.raises(HubError, match="knows none of that name"):
        download(NAME, revision="v9")
    with pytest.raises(HubError, match="there is no repository org/other"):
        download("org/other")


def test_without_the_hub_what_lies_in_the_cache_is_checked_again(
    hub: LoopbackHub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder = download(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert download(NAME) == folder and hub.log == []
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").write_bytes(b"\0other")
    with pytest.raises(ArtefactError, match=r"changed: model\.onnx"):
        Bundle.from_pretrained(NAME)


def test_a_disk_that_is_full_is_one_line(hub: LoopbackHub, tmp_path: Path) -> None:
    publish_folder(make_folder(tmp_path / "large", weights=b"\0" * 300_000))
    done = subprocess.run([sys.executable, "-c", LIMITED], env=os.environ, capture_output=True, text=True, check=False)

    assert done.returncode == 1 and "could not store org/name: File too large; free disk space" in done.stderr
    assert len(bytes_of(download(NAME))["model.onnx.data"]) == 300_000


class TestSigned:
    """With keys, one of them must have signed the files and whatever is stated of them."""

    @pytest.fixture
    def signed(self, hub: LoopbackHub, tmp_path: Path) -> Path:
        folder = make_folder(tmp_path / "bundle")
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        report = (folder / "signatures" / "parity.json").rename(tmp_path / "parity.json")
        sign_folder(folder, SigningKey.read(make_key(tmp_path, "own")), reports={"parity": report})
        make_key(tmp_path, "other")
        publish_folder(folder, license=None)
        return folder

    def test_the_right_key_opens_and_the_wrong_one_does_not(self, signed: Path, tmp_path: Path) -> None:
        own, other = (TrustedKey.read(tmp_path / f"{name}.pub") for name in ("own", "other"))
        assert {"model.sig", "signatures"} <= {path.name for path in download(NAME, keys=[other, own]).iterdir()}
        with pytest.raises(ArtefactError, match="signed by a trusted key"):
            download(NAME, keys=[other])

    def test_an_exchanged_manifest_is_found(self, hub: LoopbackHub, signed: Path, tmp_path: Path) -> None:
        own = TrustedKey.read(tmp_path / "own.pub")
        other = make_folder(tmp_path / "other", weights=b"\0not signed!")
        swapped = {name: Blob((other / name).read_bytes(), False) for name in ("manifest.json", "model.onnx.data")}
        hub.repositories[NAME].commit(swapped, ())
        hub.log.clear()
        assert download(NAME)  # whole in itself
        with pytest.raises(ArtefactError, match="should be as it was signed, it is not"):
            download(NAME, keys=[own])

    def test_a_statement_about_other_files_or_of_a_failure_is_refused(
        self, hub: LoopbackHub, signed: Path, tmp_path: Path
    ) -> None:
        own, name = TrustedKey.read(tmp_path / "own.pub"), "signatures/parity.intoto.json"
        changes = {
            "should be about these files": lambda said: said["subject"][0].update(digest={"sha256": "b" * 64}),
            "states that the verification failed": lambda said: said["predicate"].update(result="FAILED"),
        }
        for message, change in changes.items():
            changed = Path(shutil.copy(signed / name, tmp_path / "changed.json"))
            sign_payload(changed, tmp_path / "own.pem", change)
            hub.repositories[NAME].commit({name: Blob(changed.read_bytes(), False)}, ())
            with pytest.raises(ArtefactError, match=message):
                download(NAME, keys=[own])

    def test_a_statement_of_a_stranger_and_a_missing_signature_are_refused(
        self, hub: LoopbackHub, signed: Path, tmp_path: Path
    ) -> None:
        own, repository = TrustedKey.read(tmp_path / "own.pub"), hub.repositories[NAME]
        files = dict(repository.commits[repository.head])
        repository.commit({"signatures/audit.intoto.json": files["config.json"]}, ())
        with pytest.raises(ArtefactError, match=r"audit\.intoto\.json should be signed"):
            download(NAME, keys=[own])
        repository.commit({"signatures/audit.intoto.json": files["model.sig"]}, ["model.sig"])
        with pytest.raises(ArtefactError, match=r"it holds no model\.sig"):
            download(NAME, keys=[own])

    @pytest.mark.parametrize("lost", ["parity", "export"])
    def test_stripped_statements_are_refused(self, hub: LoopbackHub, signed: Path, tmp_path: Path, lost: str) -> None:
        repository = hub.repositories[NAME]
        repository.commit({}, [f"signatures/{lost}.intoto.json"])
        with pytest.raises(ArtefactError, match=f"signed statement of the {lost}"):
            Bundle.from_pretrained(NAME, keys=[TrustedKey.read(tmp_path / "own.pub")])
        assert download(NAME)  # the control: nobody asked who signed
