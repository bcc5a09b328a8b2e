"""A base that brings code and pictures ends in a publication; links, hidden files and forged reports in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.core.errors import ArtefactError
from prosocial.core.files import sha256_file, write_json
from prosocial.core.signing import SigningKey
from prosocial.export.hub import HubClient, check_verification, download, identify, plan_publication, publish
from prosocial.verify.audit import audit_model
from prosocial.verify.signing import sign_folder

from ..audit_helpers import base_tensors, edit, make_vector, write
from ..hub.hub_fixture import LoopbackHub
from ..hub_helpers import FACTS, NAME, bytes_of, make_folder, write_manifest, write_report
from ..signing_helpers import make_key

KEPT = {"LICENSE": b"text", "USE_POLICY.md": b"text", "Notice.txt": b"text", "qwen.tiktoken": b"IQ== 0\n"}
LEFT_OUT = {
    "configuration_pico.py": b"# code\n",
    "logo.png": b"\x89PNG\r\n\x1a\n",
    "mergekit_config.yml": b"a: 1\n",
    "params.yaml": b"!!python/object/apply:os.system [id]\n",
    "LICENSE.pdf": b"%PDF",
    "figures/benchmark.svg": b"<svg/>",
    "eval.csv": b"a,b\n",
    "run.ipynb": b"{}",
    "ops.so": b"\x7fELF",
    "tokenizer.pickle": b"\x80\x04N.",
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A base with many side files, its edit, and the audit of the edit."""
    base = base_tensors(size=8)
    write(tmp_path / "base", base)
    for name, content in (KEPT | LEFT_OUT).items():
        path = tmp_path / "base" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    config = {"model_type": "llama", "auto_map": {"AutoConfig": "configuration_pico.PicoConfig"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    make_vector(tmp_path, base)
    edit(tmp_path, out="edited")
    write_json(tmp_path / "audit.json", audited(tmp_path, tmp_path / "edited"))
    return tmp_path


def audited(world: Path, model: Path) -> dict[str, Any]:
    return audit_model(model, base=world / "base", vectors=[world / "vector"]).to_json()


def test_a_base_with_other_files_ends_in_a_publication_whose_record_is_valid(hub: LoopbackHub, world: Path) -> None:
    plan = plan_publication(world / "edited", NAME, license="mit", report=world / "audit.json")
    assert plan.left_out == tuple(sorted(LEFT_OUT)) == tuple(plan.to_json(None)["left_out"])
    assert any("config.json names code (auto_map)" in note for note in plan.notes)
    publish(plan, HubClient.connect(NAME), seen=None)

    assert set(KEPT) <= set(hub.files(NAME)) and not set(LEFT_OUT) & set(hub.files(NAME))
    fetched = download(NAME)
    assert check_verification(fetched, identify(fetched)).verdict == "confirmed"
    assert audited(world, fetched)["verdict"] == "confirmed"
    copied = world / "again"
    shutil.copytree(fetched, copied)
    assert plan_publication(copied, NAME, license="mit").left_out == ()


def test_a_side_file_that_is_published_must_be_there_and_as_recorded(world: Path) -> None:
    for change in (Path.unlink, lambda path: path.write_bytes(b"other")):
        shutil.copytree(world / "edited", world / "changed")
        change(world / "changed" / "Notice.txt")
        with pytest.raises(ArtefactError, match=r"Notice.txt should have the digest"):
            plan_publication(world / "changed", NAME, license="mit", report=world / "audit.json")
        assert audited(world, world / "changed")["verdict"] == "refuted"
        shutil.rmtree(world / "changed")
    (world / "edited" / "logo.png").write_bytes(b"another picture")
    with pytest.raises(ArtefactError, match=r"logo.png should have the digest"):
        plan_publication(world / "edited", NAME, license="mit", report=world / "audit.json")


def test_a_signed_folder_says_what_to_take_out_and_then_publishes(hub: LoopbackHub, world: Path) -> None:
    folder, audit, key = world / "edited", str(world / "audit.json"), str(make_key(world, "own"))
    words = ["publish", str(folder), NAME, "--license", "mit", "--audit", audit]
    for _ in range(len(LEFT_OUT) + 1):
        assert main([*words, "--write-card"]) == 0
        assert main(["sign", str(folder), "--key", key, "--audit", audit, "--again"]) == 0
        try:
            plan = plan_publication(folder, NAME)
            break
        except ArtefactError as refused:
            named = next(name for name in LEFT_OUT if f"{folder / name} is not published" in str(refused))
            (folder / named).unlink()
    assert plan.left_out == () and main(["publish", str(folder), NAME]) == 0
    public = str(Path(key).with_suffix(".pub"))
    fetched = download(NAME)
    assert main(["check-signature", str(fetched), "--key", public, "--base", str(world / "base")]) == 0


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a file": lambda folder, secret: (folder / "notes.txt").symlink_to(secret),
    "the card": lambda folder, secret: (folder / "README.md").symlink_to(secret),
    "a report": lambda folder, secret: _relink(folder / "signatures" / "audit.json", secret),
    "the folder of statements": lambda folder, secret: (folder / "signatures").symlink_to(secret.parent),
    "the signature": lambda folder, secret: (folder / "model.sig").symlink_to(secret),
    "a folder": lambda folder, secret: (folder / "more").symlink_to(secret.parent),
    "a link inside of the folder": lambda folder, secret: (folder / "notes.txt").symlink_to("config.json"),
    "a broken link": lambda folder, secret: (folder / "notes.txt").symlink_to(secret.with_name("gone")),
    "a hidden link": lambda folder, secret: (folder / ".notes").symlink_to(secret),
}


def _relink(path: Path, target: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", LINKS)
def test_no_link_is_followed_by_publish_and_sign(hub: LoopbackHub, world: Path, name: str) -> None:
    (world / "elsewhere").mkdir()
    secret = world / "elsewhere" / "secret.json"
    secret.write_text('{"top": "secret"}')
    LINKS[name](world / "edited", secret)
    before = bytes_of(world / "elsewhere")
    audit, key = str(world / "audit.json"), str(make_key(world, "own"))
    words = ["publish", str(world / "edited"), NAME, "--license", "mit", "--audit", audit]

    assert [main(words), main([*words, "--write-card"]), main([*words, "--dry-run"])] == [2, 2, 2]
    assert main(["sign", str(world / "edited"), "--key", key, "--audit", audit, "--again"]) == 2
    assert bytes_of(world / "elsewhere") == before and hub.repositories == {}


def test_a_folder_that_is_itself_a_link_is_fine(world: Path) -> None:
    (world / "link").symlink_to(world / "edited")
    assert plan_publication(world / "link", NAME, license="mit", report=world / "audit.json").files


@pytest.mark.parametrize("name", [".w/model.data", ".model.data", "sub/.hidden/model.data"])
def test_a_hidden_file_that_the_manifest_lists_is_refused(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "bundle")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx.data").rename(folder / name)
    write_manifest(folder, facts=FACTS)
    write_report(folder)
    with pytest.raises(ArtefactError, match=r"is not published \(hidden.*manifest.json lists it"):
        plan_publication(folder, NAME, license="mit")


def test_a_hidden_file_that_the_signature_covers_is_refused(world: Path) -> None:
    folder, audit = world / "edited", str(world / "audit.json")
    for name in LEFT_OUT:
        (folder / name).unlink()
    (folder / ".hidden.json").write_text("{}")
    assert main(["publish", str(folder), NAME, "--license", "mit", "--audit", audit, "--write-card"]) == 0
    sign_folder(folder, SigningKey.read(make_key(world, "own")), reports={"audit": audit})
    with pytest.raises(ArtefactError, match=r"\.hidden\.json is not published"):
        plan_publication(folder, NAME)


GATE = {"name": "flips", "title": "Tokens", "observed": 0.0, "threshold": 0.0, "verdict": "pass"}
FORGED: dict[str, dict[str, Any]] = {
    "no checks": {"gates": []},
    "no positions": {"n_positions": 0},
    "no prompts": {"n_prompts": 0},
    "no counts": {"n_positions": None, "n_prompts": None},
    "a check that failed": {"gates": [GATE, GATE | {"verdict": "fail"}]},
    "a check in doubt": {"gates": [GATE, GATE | {"verdict": "ambiguous"}]},
    "checks that are text": {"gates": "x"},
    "a check without numbers": {"gates": [{"title": "t"}]},
    "a check with text as a number": {"gates": [GATE | {"observed": "x"}]},
    "a list of decisions": {"safe_set": []},
    "an object as a count": {"n_positions": {}},
    "a list as the subject": {"subject": []},
    "a text as the subject": {"subject": "x"},
    "a list as the verdict": {"verdict": ["pass"]},
    "a null as the title": {"gates": [GATE | {"title": None}]},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_bundle_passes_only_by_a_comparison(
    hub: LoopbackHub, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "bundle")
    write_report(folder, **FORGED[name])
    assert main(["publish", str(folder), NAME, "--license", "mit", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "**pass**" not in said.out


@pytest.mark.parametrize("levels", [[], "x", [{"level": 1}], [{"level": "a", "verdict": "b"}], None])
def test_an_audit_report_of_another_form_is_one_line(world: Path, levels: object) -> None:
    report = json.loads((world / "audit.json").read_text()) | {"levels": levels}
    write_json(world / "odd.json", report)
    with pytest.raises(ArtefactError, match=r"odd\.json should be as prosocial audit"):
        plan_publication(world / "edited", NAME, license="mit", report=world / "odd.json")


def test_text_of_a_report_is_no_markup_in_the_card(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "bundle")
    title = "x |<img src=x onerror=alert(1)> [a](javascript:alert(1)) \n# H1 **b** \x1b[31m ![p](https://evil/p.png)"
    write_report(folder, gates=[GATE | {"title": title}])
    card = plan_publication(folder, NAME, license="mit").card
    (line,) = [line for line in card.splitlines() if "H1" in line]
    assert not any(part in line for part in ("<img", "](", "**b", "\x1b")) and line.startswith("| x")
    assert "Not measured: whether harmful replies became rarer" in card


def test_a_card_that_replaces_a_link_leaves_its_target(world: Path) -> None:
    from prosocial.export.hub.card import write_card

    (world / "target.md").write_text("mine")
    (world / "edited" / "README.md").symlink_to(world / "target.md")
    write_card(world / "edited", "card")
    assert (world / "target.md").read_text() == "mine" and (world / "edited" / "README.md").read_text() == "card"
    assert sha256_file(world / "target.md")
