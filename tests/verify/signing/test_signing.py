"""The signed chain: what we sign others accept, and every link that is missing or broken is named."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from prosocial.cli.main import app
from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.core.signing.envelope import unverified
from prosocial.core.signing.model_signature import FolderDigest
from prosocial.verify.audit import audit_model
from prosocial.verify.audit.verdicts import AuditVerdict
from prosocial.verify.signing import check_chain, sign_folder

from ...signing_helpers import chain, flip_last_byte, make_edited, make_key, reference_verifier


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, and a signed edit. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("signed")
    make_edited(folder, make_key(folder, "own"))
    make_key(folder, "other")
    return folder


@pytest.fixture
def edited(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world / "out", tmp_path / "out"))


def test_an_honest_chain_passes_and_names_who_signed(world: Path) -> None:
    report = chain(world / "out", world, base=world / "base")
    assert report.verdict == "pass", report.to_json()
    assert [link.name for link in report.links] == ["base", "signature", "edit", "audit"]
    assert {link.signed_by for link in report.links[1:]} == {"own.pub"}


def test_the_reference_verifier_accepts_what_we_sign_and_finds_what_was_changed(world: Path, edited: Path) -> None:
    (edited / "sub").mkdir()
    (edited / "sub" / "more.json").write_text("{}")
    (edited / "sub.json").write_text("{}")  # sorts differently as a path and as text
    sign_folder(edited, SigningKey.read(world / "own.pem"), again=True)
    accepted = reference_verifier(edited, world / "own.pub")
    assert (accepted.returncode, accepted.stdout.strip()) == (0, "Verification succeeded"), accepted.stderr
    assert reference_verifier(edited, world / "other.pub").returncode == 1
    flip_last_byte(edited / "model.safetensors")
    refused = reference_verifier(edited, world / "own.pub")
    assert refused.returncode == 1 and "model.safetensors" in refused.stderr


def test_a_signature_of_the_reference_implementation_is_checked_too(world: Path, edited: Path) -> None:
    from model_signing import hashing, signing

    shutil.rmtree(edited / "signatures")
    (edited / "model.sig").unlink()
    ignored = hashing.Config().set_ignored_paths(paths=[edited / "model.sig"])
    config = signing.Config().use_elliptic_key_signer(private_key=world / "own.pem").set_hashing_config(ignored)
    config.sign(edited, edited / "model.sig")
    links = {link.name: str(link.state) for link in chain(edited, world).links}
    assert links == {"base": "not checked", "signature": "valid", "edit": "missing", "audit": "missing"}


def test_the_statement_of_the_edit_is_provenance_that_other_tools_read(world: Path) -> None:
    said = unverified(world / "out" / "signatures" / "edit.intoto.json")
    build = said["predicate"]["buildDefinition"]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert build["externalParameters"]["terms"][0]["coefficients"] == {"0.6": "0x1.3333340000000p-1"}
    assert [source["name"] for source in build["resolvedDependencies"]] == ["base", "vector 0"]
    assert said["subject"][0]["digest"]["sha256"] == FolderDigest.of(world / "out").root
    result = unverified(world / "out" / "signatures" / "audit.intoto.json")["predicate"]
    assert result["result"] == "PASSED" and len(result["passedTests"]) == 2


def test_an_auditor_adds_a_result_to_what_a_publisher_signed(world: Path, edited: Path) -> None:
    signature = (edited / "model.sig").read_bytes()
    for path in edited.glob("signatures/audit*"):
        path.unlink()
    written = sign_folder(edited, SigningKey.read(world / "other.pem"), reports={"audit": world / "audit.json"})
    assert written == ["signatures/audit.json", "signatures/audit.intoto.json"]
    assert (edited / "model.sig").read_bytes() == signature
    both = [TrustedKey.read(world / name) for name in ("own.pub", "other.pub")]
    found = check_chain(edited, keys=both)
    assert (found.verdict, [link.signed_by for link in found.links[1:]]) == (
        "pass",
        ["own.pub", "own.pub", "other.pub"],
    )
    assert chain(edited, world).verdict == "fail"  # to who does not know the auditor


def test_a_link_may_be_missing_only_if_the_caller_says_so(world: Path, edited: Path) -> None:
    (edited / "signatures" / "audit.intoto.json").unlink()
    assert chain(edited, world).verdict == "cannot say"
    assert chain(edited, world, allow_missing=["audit"]).verdict == "pass"
    (edited / "model.sig").unlink()
    assert chain(edited, world, allow_missing=["audit", "edit"]).verdict == "cannot say"
    with pytest.raises(UnknownNameError, match="export, parity"):
        chain(edited, world, allow_missing=["signature"])


def test_changed_files_are_signed_again_only_on_request_and_old_statements_go(world: Path, edited: Path) -> None:
    key = SigningKey.read(world / "own.pem")
    (edited / "README.md").write_text("a card")
    with pytest.raises(InputError, match=r"changed since.*--again"):
        sign_folder(edited, key)
    assert "README.md was not signed" in chain(edited, world).links[1].told
    sign_folder(edited, key, again=True)
    assert {link.name: str(link.state) for link in chain(edited, world).links}["audit"] == "missing"
    assert chain(edited, world, allow_missing=["audit"]).verdict == "pass"


def test_what_contradicts_itself_is_not_signed(world: Path, edited: Path) -> None:
    key = SigningKey.read(world / "own.pem")
    flip_last_byte(edited / "model.safetensors")
    with pytest.raises(ArtefactError, match="should be the record of these weights"):
        sign_folder(edited, key, again=True)
    with pytest.raises(InputError, match="report on parity"):
        sign_folder(world / "out", key, reports={"parity": world / "audit.json"})
    report = json.loads((world / "audit.json").read_text()) | {"fingerprint": "0" * 64}
    (edited.parent / "audit.json").write_text(json.dumps(report))
    with pytest.raises(ArtefactError, match="report should be about this folder"):
        sign_folder(world / "out", key, reports={"audit": edited.parent / "audit.json"})
    assert (edited / "model.sig").read_bytes() == (world / "out" / "model.sig").read_bytes()  # nothing was written


def test_keys_that_cannot_sign_are_told_apart(world: Path, tmp_path: Path) -> None:
    wide = make_key(tmp_path, "wide", ec.SECP384R1())
    (tmp_path / "text.pem").write_text("no key")
    for path, told in (
        (wide, "found EC secp384r1"),
        (tmp_path / "text.pem", "no private key"),
        (tmp_path / "x", "none"),
    ):
        with pytest.raises(InputError, match=told):
            SigningKey.read(path)
    with pytest.raises(InputError, match="public key in PEM"):
        TrustedKey.read(world / "own.pem")


def test_an_encrypted_key_opens_with_the_password_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(InputError, match="PROSOCIAL_KEY_PASSWORD"):
        SigningKey.read(path)
    monkeypatch.setenv("PROSOCIAL_KEY_PASSWORD", "wrong")
    with pytest.raises(InputError, match="does not open"):
        SigningKey.read(path)
    monkeypatch.setenv("PROSOCIAL_KEY_PASSWORD", "secret")
    assert SigningKey.read(path).public.key.public_numbers() == key.public_key().public_numbers()


def test_an_audit_with_a_key_asks_for_the_signature(world: Path, edited: Path) -> None:
    trusted = [TrustedKey.read(world / "own.pub")]
    honest = audit_model(edited, base=world / "base", vectors=[world / "vector"], keys=trusted)
    assert honest.verdict is AuditVerdict.CONFIRMED and honest.levels[0].title == "signature over all files"
    stranger = audit_model(edited, keys=[TrustedKey.read(world / "other.pub")])
    assert (stranger.verdict, stranger.levels[1].verdict) == (AuditVerdict.REFUTED, AuditVerdict.CONFIRMED)
    (edited / "model.sig").unlink()
    assert audit_model(edited, keys=trusted).verdict is AuditVerdict.CANNOT_SAY


def test_the_commands_sign_and_exit_by_the_verdict(world: Path, edited: Path) -> None:
    def run(*words: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})
        return result.exit_code, result.stdout

    check = ["check-signature", edited, "--key", world / "own.pub"]
    code, shown = run(*check, "--base", world / "base")
    assert code == 0 and "PASS" in shown and "own.pub" in shown
    (edited / "signatures" / "edit.intoto.json").unlink()
    assert run(*check)[0] == 3
    code, printed = run("sign", edited, "--key", world / "own.pem", "--json")
    assert (code, json.loads(printed)["written"]) == (0, ["signatures/edit.intoto.json"])
    assert run(*check)[0] == 0
    flip_last_byte(edited / "config.json")
    code, printed = run(*check, "--json")
    document = json.loads(printed)
    assert (code, document["verdict"], document["schema"]) == (1, "fail", "prosocial.chain/1")
