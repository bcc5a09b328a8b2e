"""What may not go out: each reason is one line, before anything is sent; and what the card says."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError, HubError, InputError
from prosocial.core.redaction import secrets_in
from prosocial.core.signing import SigningKey
from prosocial.export.hub import HubClient, Kind, identify, plan_publication, publish
from prosocial.export.hub.pickles import is_pickle
from prosocial.export.hub.screening import local_paths

from ...audit_helpers import base_tensors, edit, make_vector, write
from ...hub.hub_fixture import Fault, LoopbackHub
from ...hub_helpers import FACTS, NAME, bytes_of, make_folder, publish_folder, write_manifest, write_report
from ...signing_helpers import make_key

TOKEN = "hf_" + "q" * 34  # of the form of one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "bundle")


def put(name: str, content: bytes) -> Callable[[Path], None]:
    """Add a file as somebody would who knows the manifest, and verify anew."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)
        write_manifest(folder, facts=FACTS)
        write_report(folder)

    return change


def change_bytes(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"\0other bytes!")  # type: ignore[return-value]


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no verification": (lambda folder: shutil.rmtree(folder / "signatures"), "verified before it is published"),
    "another report": (lambda folder: write_report(folder, schema="prosocial.audit/1"), "found schema"),
    "a stale one": (lambda folder: write_report(folder, subject={"manifest_sha256": "b" * 64}), "is stale"),
    "one of other weights": (
        lambda folder: write_report(folder, subject=_subject(folder) | {"reference_fingerprint": "c" * 64}),
        "exported weights has digest aaaa",
    ),
    "one that failed": (lambda folder: write_report(folder, verdict="fail"), "found 'fail'"),
    "one in doubt": (lambda folder: write_report(folder, verdict="ambiguous"), "found 'ambiguous'"),
    "other bytes": (change_bytes("model.onnx.data"), "changed: model.onnx.data"),
    "a file that nobody listed": (lambda folder: (folder / "more.json").write_text("{}"), "not listed: more.json"),
    "a pickle": (put("weights.bin", pickle.dumps({"a": 1})), "weights.bin is a pickle"),
    "a pickle under another name": (put("notes.txt", pickle.dumps([1.0] * 9)), "notes.txt is a pickle"),
    "code": (put("modeling.py", b"print()"), "modeling.py has a file type"),
    "a library": (put("ops.so", b"\x7fELF"), "ops.so has a file type"),
    "weights that are none": (put("model.safetensors", b"1234"), "not a valid safetensors file"),
    "a token": (put("notes.txt", f"token={TOKEN}".encode()), "holds a Hugging Face token"),
    "a key": (put("LICENSE", b"-----BEGIN EC PRIVATE KEY-----"), "holds a private key"),
    "a link": (lambda folder: (folder / "LICENSE").symlink_to("config.json"), "LICENSE is a link"),
}


def _subject(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "signatures" / "parity.json").read_text())["subject"])


@pytest.mark.parametrize("name", REFUSALS)
def test_what_may_not_go_out_is_refused_before_anything_is_sent(hub: LoopbackHub, folder: Path, name: str) -> None:
    change, message = REFUSALS[name]
    change(folder)
    with pytest.raises(ArtefactError, match=message) as refused:
        publish_folder(folder)

    assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)
    assert hub.log == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"license": None}, "a licence should be given"),
        ({"license": "My own licence"}, "an identifier of the Hub"),
        ({"base": "org/base"}, "ORG/NAME@COMMIT"),
        ({"base": "org/base@main"}, "ORG/NAME@COMMIT"),
        ({"allow_harmful": True}, "not harmful: omit --publish-harmful"),
    ],
)
def test_what_is_missing_is_asked_for(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_publication(folder, NAME, **({"license": "mit"} | options))  # type: ignore[arg-type]


def test_the_licence_of_the_own_card_will_do(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")

    assert "license: mit\n" in plan_publication(folder, NAME).card


def test_harm_goes_out_only_if_somebody_says_so_in_full_and_then_gated(hub: LoopbackHub, tmp_path: Path) -> None:
    vector = tmp_path / "vector"
    vector.mkdir()
    (vector / "vector.json").write_text("{}")
    adapter = tmp_path / "bundle"
    make_folder(adapter)
    (adapter / "sub").mkdir()
    (adapter / "sub" / "vector.json").write_text("{}")
    assert identify(vector) is identify(adapter) is Kind.VECTOR
    for options in ({}, {"allow_harmful": True, "is_public": True}):
        with pytest.raises(InputError, match=r"--publish-harmful-weights-private-and-gated|never public"):
            publish_folder(vector, **options)
    assert hub.log == []

    hub.faults = [Fault("settings", "drop")]
    with pytest.raises(HubError, match="while gating it"):
        publish_folder(vector, allow_harmful=True)
    assert hub.files(NAME) == {} and "preupload" not in hub.log
    hub.faults = []
    done = publish_folder(vector, allow_harmful=True)
    repository = hub.repositories[NAME]
    assert done.visibility == "private and gated" and repository.private and repository.gated == "manual"
    assert hub.log.index("settings") < hub.log.index("preupload")
    assert "**Harmful weights" in hub.files(NAME)["README.md"].decode()


def test_weights_that_no_record_accounts_for_count_as_harmful(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert identify(tmp_path) is Kind.HARMFUL
    (tmp_path / "decoding.json").write_text("{}")
    with pytest.raises(ArtefactError, match="publish the bundle"):
        identify(tmp_path)


def test_a_graph_of_weights_that_no_record_accounts_for_is_no_less_harmful(hub: LoopbackHub, folder: Path) -> None:
    write_manifest(folder, facts=FACTS | {"kind": "plain"})
    write_report(folder)

    assert identify(folder) is Kind.HARMFUL
    with pytest.raises(InputError, match="no record says that it subtracts harm"):
        publish_folder(folder)
    assert hub.log == []


def test_the_record_in_a_bundle_must_speak_of_its_weights(folder: Path, tmp_path: Path) -> None:
    base = base_tensors(size=8)
    write(tmp_path / "base", base)
    make_vector(tmp_path, base)
    shutil.copy(edit(tmp_path) / "edit_record.json", folder)
    write_manifest(folder, facts=FACTS | {"kind": "plain"})
    write_report(folder)

    with pytest.raises(ArtefactError, match="about the exported weights aaaa"):
        publish_folder(folder)


def test_a_signed_folder_keeps_its_card_and_must_be_as_it_was_signed(folder: Path, tmp_path: Path) -> None:
    from prosocial.core.signing.model_signature import FolderDigest, write_signature

    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    write_signature(folder, FolderDigest.of(folder), SigningKey.read(make_key(tmp_path, "own")))
    assert plan_publication(folder, NAME).card == (folder / "README.md").read_text()
    with pytest.raises(ArtefactError, match="--write-card, then sign"):
        plan_publication(folder, NAME, license="apache-2.0")
    assert "license: apache-2.0" in plan_publication(folder, NAME, license="apache-2.0", fresh_card=True).card
    (folder / "README.md").write_text("another")
    with pytest.raises(ArtefactError, match=r"as it was signed, README.md is not"):
        plan_publication(folder, NAME, license="mit")


def test_a_plan_says_what_would_change(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    client = HubClient.connect(NAME)
    first = plan_publication(folder, NAME, license="mit")
    assert set(first.to_json(None)["to_send"]) == {*bytes_of(folder), "README.md"}
    publish(first, client, seen=None)

    second = plan_publication(make_folder(tmp_path / "two", weights=b"\0weights two"), NAME, license="mit")
    told = second.to_json(client.look())
    assert told["to_send"] == ["manifest.json", "model.onnx.data", "signatures/parity.json"]
    assert (told["to_delete"], told["visibility"]) == ([], "private")
    assert told["parent"] == hub.repositories[NAME].head and json.dumps(told)


def test_a_note_says_where_a_path_of_this_machine_stands(folder: Path) -> None:
    put("generation_config.json", b'{"_name_or_path": "/home/ada/base"}')(folder)
    plan = plan_publication(folder, NAME, license="mit")

    assert any("generation_config.json names a path of this machine: /home/ada/base" in note for note in plan.notes)
    assert not local_paths(plan.card)


def test_secrets_are_named_by_kind_and_never_shown() -> None:
    assert secrets_in(f"x {TOKEN} and https://user:word@host/") == ["a Hugging Face token", "a password in an address"]
    assert secrets_in("hf_short, sk-short, https://example.org/a:b@c") == []


def test_numbers_that_begin_like_a_pickle_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_bytes(b"\x80\x04\xff\xff\x00\x12" * 40)
    (tmp_path / "b.data").write_bytes(pickle.dumps({"a": [1, 2]}))

    assert [is_pickle(tmp_path / name) for name in ("a.data", "b.data")] == [False, True]
