"""Whatever is done to what was signed: a clear verdict that names the link, and never a pass."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.signing import SigningKey
from prosocial.evaluation.probes.probe import Probe
from prosocial.verify import ParityVerdict, verify_bundle
from prosocial.verify.signing import sign_folder

from ...signing_helpers import chain, change_json, make_edited, make_key
from ..parity_world import copy, fit_manifest
from .attacks import (
    AUDIT,
    EDIT,
    EXPORT,
    PARITY,
    SIGNATURE,
    Attack,
    another_edit_with_right_digests,
    delete,
    envelope,
    flip,
    forged,
    from_another,
    leave_out_the_weights,
    list_a_file_twice,
    manifest_that_does_not_match,
    manifest_written_again,
    result_of_another_verdict,
    sign_everything_as_another,
    signed,
    statement_in_the_place_of_the_signature,
    write,
)

PROBES = [Probe("a", ({"role": "user", "content": "word3 word8 word5"},), "benign")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path, steered_folder: Path) -> Path:
    """Keys; a signed edit `out` with an audit, another one `second`; a signed bundle with parity."""
    folder = tmp_path_factory.mktemp("signed")
    own = make_key(folder, "own")
    make_key(folder, "other")
    make_edited(folder, own)
    shutil.copytree(folder / "out", folder / "second")
    change_json(folder / "second" / "generation_config.json", lambda config: config.update(max_length=9))
    sign_folder(folder / "second", SigningKey.read(own), reports={"audit": folder / "audit.json"}, again=True)
    report = verify_bundle(bundle_folder, reference=steered_folder, max_new_tokens=2)
    (folder / "parity.json").write_text(json.dumps(report.to_json()))
    shutil.copytree(bundle_folder, folder / "bundle")
    sign_folder(folder / "bundle", SigningKey.read(own), reports={"parity": folder / "parity.json"})
    return folder


ATTACKS: dict[str, tuple[Attack, str, str, str, str]] = {
    "a weight changed": (flip("model.safetensors"), "out", "signature", "broken", "model.safetensors was changed"),
    "a config changed": (flip("config.json"), "out", "signature", "broken", "config.json was changed"),
    "a file added": (write("tokenizer.json", "{}"), "out", "signature", "broken", "tokenizer.json was not signed"),
    "a hidden file added": (write(".extra", ""), "out", "signature", "broken", ".extra was not signed"),
    "a file removed": (
        delete("generation_config.json"),
        "out",
        "signature",
        "broken",
        "generation_config.json is missing",
    ),
    "the signature stripped": (delete(SIGNATURE), "out", "signature", "missing", "not signed"),
    "the signature empty": (write(SIGNATURE, ""), "out", "signature", "broken", "one signature"),
    "the signature a list": (write(SIGNATURE, "[]"), "out", "signature", "broken", "one signature"),
    "the signature nested without end": (write(SIGNATURE, "[" * 9000), "out", "signature", "broken", "one signature"),
    "the signature of another folder": (
        from_another(SIGNATURE),
        "out",
        "signature",
        "broken",
        "config.json was changed",
    ),
    "a signature by nobody": (
        envelope(SIGNATURE, lambda e: e["dsseEnvelope"].update(signatures=[])),
        "out",
        "signature",
        "broken",
        "one signature",
    ),
    "two signatures": (
        envelope(SIGNATURE, lambda e: e["dsseEnvelope"].update(signatures=2 * e["dsseEnvelope"]["signatures"])),
        "out",
        "signature",
        "broken",
        "one signature",
    ),
    "no base64": (
        envelope(SIGNATURE, lambda e: e["dsseEnvelope"].update(payload="%%")),
        "out",
        "signature",
        "broken",
        "one signature",
    ),
    "another payload type": (
        envelope(SIGNATURE, lambda e: e["dsseEnvelope"].update(payloadType="text/plain")),
        "out",
        "signature",
        "broken",
        "in-toto",
    ),
    "digests forged": (
        forged(SIGNATURE, lambda said: said["predicate"]["resources"][0].update(digest="0" * 64)),
        "out",
        "signature",
        "broken",
        "none of the 1 trusted",
    ),
    "everything signed by another": (sign_everything_as_another, "out", "signature", "broken", "none of the 1 trusted"),
    "the root digest of another folder": (
        signed(SIGNATURE, lambda said: said["subject"][0]["digest"].update(sha256="0" * 64)),
        "out",
        "signature",
        "broken",
        "digests that combine",
    ),
    "the weights left out of the signature": (
        signed(SIGNATURE, leave_out_the_weights),
        "out",
        "signature",
        "broken",
        "digests that combine",
    ),
    "a file listed twice": (signed(SIGNATURE, list_a_file_twice), "out", "signature", "broken", "digests that combine"),
    "another predicate": (
        signed(SIGNATURE, lambda said: said.update(predicateType="other")),
        "out",
        "signature",
        "broken",
        "should sign files by SHA-256",
    ),
    "shards instead of files": (
        signed(SIGNATURE, lambda said: said["predicate"]["serialization"].update(method="shards")),
        "out",
        "signature",
        "broken",
        "should sign files by SHA-256",
    ),
    "a statement as the signature": (
        statement_in_the_place_of_the_signature,
        "out",
        "signature",
        "broken",
        "model signing v1.0",
    ),
    "the edit's statement stripped": (delete(EDIT), "out", "edit", "missing", "there is no signatures/edit"),
    "the edit's statement of another folder": (from_another(EDIT), "out", "edit", "broken", "its subject"),
    "the edit's base forged": (
        forged(EDIT, lambda said: said["predicate"]["buildDefinition"].update(resolvedDependencies=[])),
        "out",
        "edit",
        "broken",
        "none of the 1 trusted",
    ),
    "the edit stated by another": (
        signed(EDIT, lambda said: None, "other"),
        "out",
        "edit",
        "broken",
        "none of the 1 trusted",
    ),
    "another coefficient stated": (
        signed(
            EDIT,
            lambda said: said["predicate"]["buildDefinition"]["externalParameters"]["terms"][0].update(
                coefficients={"0.5": "0x1p-1"}
            ),
        ),
        "out",
        "edit",
        "broken",
        "terms[0].coefficients",
    ),
    "the audit in the place of the edit": (
        lambda folder, world: shutil.copy(folder / AUDIT, folder / EDIT),
        "out",
        "edit",
        "broken",
        "differs from this folder's",
    ),
    "the record changed": (
        envelope("edit_record.json", lambda record: record["base"].update(fingerprint="0" * 64)),
        "out",
        "edit",
        "broken",
        "its predicate",
    ),
    "another edit with right digests": (
        another_edit_with_right_digests,
        "out",
        "edit",
        "broken",
        "differs from this folder's",
    ),
    "the record no record": (write("edit_record.json", "{}"), "out", "edit", "broken", "should have schema"),
    "the audit stripped": (delete(AUDIT), "out", "audit", "missing", "there is no signatures/audit"),
    "the audit's report changed": (
        envelope("signatures/audit.json", lambda report: report.update(base="other")),
        "out",
        "audit",
        "broken",
        "configuration[0].digest",
    ),
    "the audit's report stripped": (delete("signatures/audit.json"), "out", "audit", "broken", "there is none"),
    "the audit of other weights": (
        envelope("signatures/audit.json", lambda report: report.update(fingerprint="0" * 64)),
        "out",
        "audit",
        "broken",
        "should be about this folder",
    ),
    "an audit that refutes": (
        result_of_another_verdict("audit", "refuted"),
        "out",
        "audit",
        "broken",
        "signed result is FAILED",
    ),
    "an audit that cannot say": (
        result_of_another_verdict("audit", "cannot say"),
        "out",
        "audit",
        "doubtful",
        "signed result is WARNED",
    ),
    "weights in the bundle changed": (
        flip("model.onnx.data"),
        "bundle",
        "signature",
        "broken",
        "model.onnx.data was changed",
    ),
    "the bundle's data cut short": (
        lambda folder, world: (folder / "model.onnx.data").write_bytes(b"x"),
        "bundle",
        "export",
        "broken",
        "model.onnx.data differs",
    ),
    "weights changed and the manifest made to fit": (
        manifest_written_again,
        "bundle",
        "parity",
        "broken",
        "bundle's manifest",
    ),
    "a manifest that does not match": (
        manifest_that_does_not_match,
        "bundle",
        "export",
        "broken",
        "genai_config.json differs",
    ),
    "the decoding config changed": (
        envelope("decoding.json", lambda config: config.update(harm_threshold=1.0)),
        "bundle",
        "export",
        "broken",
        "decoding.json differs",
    ),
    "the template changed": (
        flip("chat_template.jinja"),
        "bundle",
        "signature",
        "broken",
        "chat_template.jinja was changed",
    ),
    "parity stripped": (delete(PARITY), "bundle", "parity", "missing", "there is no signatures/parity"),
    "parity stated by another": (
        signed(PARITY, lambda said: None, "other"),
        "bundle",
        "parity",
        "broken",
        "none of the 1 trusted",
    ),
    "a parity that fails": (
        result_of_another_verdict("parity", "fail"),
        "bundle",
        "parity",
        "broken",
        "signed result is FAILED",
    ),
    "a parity that is ambiguous": (
        result_of_another_verdict("parity", "ambiguous"),
        "bundle",
        "parity",
        "doubtful",
        "signed result is WARNED",
    ),
    "a failing parity stated as passed": (
        envelope("signatures/parity.json", lambda report: report.update(verdict="pass", gates=[])),
        "bundle",
        "parity",
        "broken",
        "its predicate",
    ),
    "the weights that were exported forged": (
        signed(EXPORT, lambda said: said["predicate"]["buildDefinition"].update(resolvedDependencies=[])),
        "bundle",
        "export",
        "broken",
        "resolvedDependencies",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_told_by_its_link(name: str, world: Path, tmp_path: Path) -> None:
    attack, kind, link, state, told = ATTACKS[name]
    folder = Path(shutil.copytree(world / kind, tmp_path / kind))
    assert chain(folder, world).verdict == "pass"  # the control
    attack(folder, world)
    report = chain(folder, world)
    found = {each.name: each for each in report.links}[link]
    assert (str(found.state), told in found.told) == (state, True), found
    assert report.verdict == ("fail" if "broken" in {each.state for each in report.links} else "cannot say")
    assert "\n" not in found.told


def test_a_folder_linked_into_a_model_is_refused(world: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world / "out", tmp_path / "out"))
    (folder / "more").symlink_to(world)
    with pytest.raises(ArtefactError, match="more links to another folder"):
        chain(folder, world)


def test_another_base_or_checkpoint_breaks_the_chain(world: Path) -> None:
    for folder, given in (("out", {"base": world / "second"}), ("bundle", {"checkpoint": world / "out"})):
        report = chain(world / folder, world, **given)
        assert (report.verdict, str(report.links[0].state)) == ("fail", "broken")
        assert "should have fingerprint" in report.links[0].told


def weights_from(place: str) -> Callable[[Path], None]:
    """Let a bundle read its weights from another file."""

    def attack(folder: Path) -> None:
        graph = onnx.load(folder / "model.onnx", load_external_data=False)
        shutil.copy(folder / "model.onnx.data", folder.parent / "outside.data")
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place.format(folder=folder.parent)
        onnx.save(graph, folder / "model.onnx")

    return attack


def other_domain(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    next(node for node in graph.graph.node if node.op_type == "MatMul").domain = "evil.operators"
    onnx.save(graph, folder / "model.onnx")


def weights_of_nan(folder: Path) -> None:
    values = np.fromfile(folder / "model.onnx.data", np.float32)
    np.full_like(values, np.nan).tofile(folder / "model.onnx.data")


def another_tokenizer(folder: Path) -> None:
    change_json(folder / "tokenizer.json", lambda file: file["model"]["vocab"].update(word3=8, word8=3))


def cut_short(folder: Path) -> None:
    (folder / "model.onnx.data").write_bytes((folder / "model.onnx.data").read_bytes()[:-4000])


# What is done to a bundle before its manifest is made to fit, and what `verify` says: a failed gate, or an error.
BUNDLES: dict[str, tuple[Callable[[Path], None], str | None, str]] = {
    "weights beside the folder": (weights_from("../outside.data"), None, "should load in ONNX Runtime"),
    "weights at an absolute path": (weights_from("{folder}/outside.data"), None, "should load in ONNX Runtime"),
    "an unknown operator domain": (other_domain, None, "should load in ONNX Runtime"),
    "a data file cut short": (cut_short, None, "should load in ONNX Runtime"),
    "another tokenizer": (another_tokenizer, None, "should encode probe"),
    "weights of NaN": (weights_of_nan, "flips", ""),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_hostile_bundle_never_passes(name: str, bundle_folder: Path, steered_folder: Path, tmp_path: Path) -> None:
    attack, gate, told = BUNDLES[name]
    folder = copy(bundle_folder, tmp_path / "bundle")
    attack(folder)
    fit_manifest(folder)
    if gate is None:
        with pytest.raises(InputError, match=told):
            verify_bundle(folder, reference=steered_folder, probes=PROBES, max_new_tokens=2)
    else:
        report = verify_bundle(folder, reference=steered_folder, probes=PROBES, max_new_tokens=2)
        failed = {each.name for each in report.gates if each.verdict is ParityVerdict.FAIL}
        assert gate in failed and report.verdict is ParityVerdict.FAIL
