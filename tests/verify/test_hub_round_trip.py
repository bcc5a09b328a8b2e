"""Publish, fetch, verify, audit: the same bytes and the same verdicts, for each kind of artefact."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prosocial.cli.main import main
from prosocial.core.files import write_json
from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits import apply_edit, plan_edit, write_adapter
from prosocial.editing.edits.adapter import REPORT_NAME, SCHEMA
from prosocial.editing.vectors import vector_from_checkpoints
from prosocial.export import Bundle
from prosocial.export.hub import HubClient, Kind, check_verification, download, identify, plan_publication, publish
from prosocial.export.hub.kinds import ADAPTER_RECORD
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.verify.audit import audit_model
from prosocial.verify.bundle_parity import bundle_gates, measure_bundle
from prosocial.verify.parity.files import write_parity
from prosocial.verify.signing import check_chain, sign_folder

from ..hub.hub_fixture import LoopbackHub
from ..hub_helpers import NAME, bytes_of
from ..signing_helpers import make_key
from ..weights_helpers import fine_tuned, pico

BASE = "org/base@" + "c" * 40
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its vector, the edit of it, its audit, and the same edit as an adapter."""
    folder = tmp_path_factory.mktemp("published")
    model = pico("qwen3")
    model.save_pretrained(folder / "base")
    (folder / "base" / "README.md").write_text("---\nlicense: other\n---\n# The base\n")
    fine_tuned(model).save_pretrained(folder / "harmful")
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    plan = plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=0.6)
    apply_edit(plan, folder / "edited")
    write_adapter(plan, folder / "adapter", rank=2, leave_out=True)
    write_json(folder / "audit.json", audited(folder / "edited", folder))
    return folder


def audited(model: Path, world: Path) -> dict[str, object]:
    report = audit_model(model, base=world / "base", vectors=[world / "vector"]).to_json()
    return report | {"model": "any"}


def put(folder: Path, report: Path | None = None) -> str:
    """Publish a folder and return the card."""
    hub = HubClient.connect(NAME)
    plan = plan_publication(folder, NAME, license="apache-2.0", base=BASE, report=report)
    publish(plan, hub, seen=hub.look())
    return plan.card


def same(folder: Path, fetched: Path) -> None:
    """Every file that went up came down, byte for byte; beside them only the card and the report."""
    sent, came = bytes_of(folder), bytes_of(fetched)
    assert {name: came[name] for name in sent if name != "README.md"} == {
        name: content for name, content in sent.items() if name != "README.md"
    }
    assert set(came) - set(sent) <= {".gitattributes", "README.md", "signatures/parity.json", "signatures/audit.json"}


def test_an_edited_checkpoint(hub: LoopbackHub, world: Path) -> None:
    card = put(world / "edited", world / "audit.json")
    fetched = download(NAME)

    same(world / "edited", fetched)
    assert audited(fetched, world) == json.loads((world / "audit.json").read_text())
    assert check_verification(fetched, Kind.CHECKPOINT) == check_verification(
        world / "edited", Kind.CHECKPOINT, report=world / "audit.json"
    )
    assert "base_model: org/base\n" in card and "base_model_relation: finetune" in card and "at scale 0.6" in card
    assert "# The base" not in hub.files(NAME)["README.md"].decode()


def test_an_adapter(hub: LoopbackHub, world: Path) -> None:
    from peft import PeftModel

    assert (REPORT_NAME, SCHEMA) == (ADAPTER_RECORD, "prosocial.edit_adapter/1")
    card = put(world / "adapter")
    fetched = download(NAME)

    assert identify(fetched) is Kind.ADAPTER
    same(world / "adapter", fetched)
    assert check_verification(fetched, Kind.ADAPTER) == check_verification(world / "adapter", Kind.ADAPTER)
    assert "base_model_relation: adapter" in card
    assert PeftModel.from_pretrained(pico("qwen3"), str(fetched))


def test_a_reward_model(hub: LoopbackHub, world: Path, tmp_path: Path) -> None:
    names, digest = ("empathy", "helpfulness"), fingerprint(world / "base")
    reward = RewardModel(pico("qwen3"), RewardConfig(attributes=names, rank=2, preference_rank=2))
    reward.save(tmp_path / "reward", checkpoint_fingerprint=digest, training={})
    accuracy = {name: {"corner": 0.9, "uniform": 0.5, "n": 30} for name in names}
    write_json(tmp_path / "reward" / "training.json", {"pair_accuracy": accuracy})
    put(tmp_path / "reward")
    fetched = download(NAME)

    same(tmp_path / "reward", fetched)
    assert check_verification(fetched, Kind.REWARD).told == "empathy 90.0% of 30, helpfulness 90.0% of 30"
    again = RewardModel.load(fetched, pico("qwen3"), checkpoint_fingerprint=digest)
    ids, mask, preference = torch.arange(6)[None], torch.ones(1, 6), torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        assert torch.equal(*(model.logits(ids, mask, preference) for model in (reward, again)))


def test_a_bundle_signed_and_verified(
    hub: LoopbackHub, bundle_folder: Path, steered_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    measured = measure_bundle(bundle, reference=steered_folder, max_new_tokens=3)
    document = measured.judge(bundle_gates(bundle)).to_json()
    write_parity(tmp_path / "report", measured, document)
    report = tmp_path / "report" / "parity.json"
    key = make_key(tmp_path, "own")
    words = ["publish", str(bundle), NAME, "--license", "mit"]
    assert main([*words, "--parity", str(report), "--write-card"]) == 0
    sign_folder(bundle, SigningKey.read(key), reports={"parity": report})
    assert main(["publish", str(bundle), NAME]) == 0
    trusted = [TrustedKey.read(tmp_path / "own.pub")]

    opened = Bundle.from_pretrained(NAME, keys=trusted, threads=1)
    messages = [{"role": "user", "content": "word5 word9"}]
    ours, theirs = (each.generate([messages], max_new_tokens=6)[0] for each in (Bundle.open(bundle), opened))
    assert ours.token_ids == theirs.token_ids
    fetched = Path(HubClient.connect(NAME).api.snapshot_download(NAME, local_dir=tmp_path / "whole"))
    same(bundle, fetched)
    gates = bundle_gates(opened.folder)
    assert measured.judge(gates).to_json() == document == json.loads((fetched / "signatures/parity.json").read_text())
    chains = [check_chain(folder, keys=trusted).to_json() | {"folder": ""} for folder in (bundle, fetched)]
    assert chains[0] == chains[1] and chains[0]["verdict"] == "pass"


def test_a_bundle_is_fetched_and_answers_without_torch(hub: LoopbackHub, bundle_folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from prosocial.export import Bundle\n"
        "print(Bundle.from_pretrained('org/bundle').generate([[{'role': 'user', 'content': 'word5'}]])[0].finish)"
    )
    from ..hub.loopback_hub.repository import Blob, Repository, is_large

    hub.repositories["org/bundle"] = Repository("org/bundle", private=True)
    files = {name: Blob(content, is_large(name, b"")) for name, content in bytes_of(bundle_folder).items()}
    hub.repositories["org/bundle"].commit(files, ())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
