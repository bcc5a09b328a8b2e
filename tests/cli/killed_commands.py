"""The commands that write, what a whole output of each is, and a folder with everything that they read."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from prosocial.core.files import read_json, read_jsonl
from prosocial.core.signing import TrustedKey
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits.record import read_record
from prosocial.editing.vectors.folder import VectorFolder
from prosocial.evaluation.gate.threshold_choice import ThresholdChoice
from prosocial.export.bundle_files.manifest import check_manifest
from prosocial.steering import CompactHead, HarmGate, SteeredModel
from prosocial.steering.configs import NamedConfig
from prosocial.training.reward.model import read_reward_config
from prosocial.verify.bundle_parity import read_measurement_of
from prosocial.verify.signing import check_chain

from ..editing.gguf.writing import write_gguf
from ..fork_server import ForkServer
from ..recipes.pico_recipe import write_recipe
from ..signing_helpers import make_key

Check = Callable[[Path], object]


@dataclass(frozen=True)
class Command:
    """A command that writes `{out}`.

    Attributes:
        words: the command; its working folder is that of `make_place`.
        check: raises an error unless an output that looks finished is whole.
        looks_finished: file in the output that says so; "" if the output itself does.
        codes: exit codes of a command that has written its output; some have a verdict too.
    """

    words: str
    check: Check
    looks_finished: str = ""
    codes: tuple[int, ...] = (0,)

    def is_finished(self, out: Path) -> bool:
        """Return whether an output looks finished."""
        return (out / self.looks_finished).exists() if self.looks_finished else out.exists()


def check_checkpoint(out: Path) -> None:
    Checkpoint.open(out).fingerprint()
    assert read_json(out / "config.json") and read_json(out / "tokenizer.json")


def check_converted(out: Path) -> None:
    check_checkpoint(out)
    assert read_json(out / "conversion.json")["fingerprint"] == Checkpoint.open(out).fingerprint()


def check_edit(out: Path) -> None:
    assert Checkpoint.open(out).fingerprint() == read_record(out).result.fingerprint
    assert load_file(out.parent / f"{out.name}.patch")


def check_undone(out: Path) -> None:
    assert Checkpoint.open(out).fingerprint() == Checkpoint.open(out.parent / "base").fingerprint()


def check_vector(out: Path) -> None:
    assert VectorFolder.open(out).names
    load_file(out / "vector.safetensors")


def check_reward(out: Path) -> None:
    digest = Checkpoint.open(out.parent / "edited").fingerprint()
    assert read_reward_config(out, checkpoint_fingerprint=digest).attributes and read_json(out / "training.json")
    load_file(out / "adapter_model.safetensors")


def check_steered(out: Path) -> None:
    SteeredModel.open(out)


def check_calibrated(out: Path) -> None:
    SteeredModel.open(out)
    ThresholdChoice.read(out / "calibration.json")


def check_run(out: Path) -> None:
    assert read_json(out / "report" / "report.json")["parity"]["verdict"] == "pass"
    for stage in ("vector", "edit", "gate", "head", "bundle"):
        assert any((out / stage).iterdir())
    check_manifest((out / "bundle").resolve())


def check_page(name: str, schema: str) -> Check:
    """Return a check of a folder with `NAME.json` and `NAME.html`."""

    def check(out: Path) -> None:
        assert read_json(out / f"{name}.json")["schema"].startswith(schema)
        assert (out / f"{name}.html").read_text().rstrip().endswith("</html>")

    return check


def check_verified(out: Path) -> None:
    check_page("parity", "prosocial.parity_report/")(out)
    read_measurement_of(out.parent / "bundle", out / "measurements.npz")
    assert (out.parent / f"{out.name}.xml").read_text().rstrip().endswith("</testsuites>")


def check_compared(out: Path) -> None:
    check_page("report", "prosocial.report/")(out)
    assert len(read_jsonl(out / "outcomes.jsonl")) == 24


def check_swept(out: Path) -> None:
    assert len(read_json(out / "trials.json")["trials"]) <= 2
    assert (out / "sweep.html").read_text().rstrip().endswith("</html>")


def check_scored(out: Path) -> None:
    check_page("cosa_score", "prosocial.cosa_score/")(out)
    assert read_jsonl(out / "replies.jsonl")


def check_signed(out: Path) -> None:
    keys = [TrustedKey.read(out.parent / "own.pub")]
    report = check_chain(out, keys=keys, allow_missing=["parity", "audit"])
    assert report.verdict == "pass", report


COMMANDS = {
    "vector": Command("vector --base base --harmful harmful -o {out}", check_vector),
    "edit": Command("edit base --subtract vector --scale 0.5 --patch {out}.patch -o {out}", check_edit),
    "convert": Command("convert model.gguf -o {out}", check_converted),
    "adapter": Command(
        "edit base --subtract vector --scale 0.5 --as-adapter 2 -o {out}",
        lambda out: load_file(out / "adapter_model.safetensors"),
    ),
    "undo": Command("undo edited --base base -o {out}", check_undone),
    "assemble": Command("assemble edited --head head --gate gate -o {out}", check_steered),
    "verify": Command(
        "verify bundle --reference steered --max-new-tokens 2 --limit 2 --probes probes.jsonl -o {out} "
        "--junit {out}.xml",
        check_verified,
        "parity.json",
    ),
    "compare": Command(
        "compare base edited --probes probes.jsonl --max-new-tokens 2 -o {out}",
        check_compared,
        "report.json",
        codes=(0, 1),
    ),
    "sweep": Command(
        "sweep base --harmful edited --probes probes.jsonl --trials 2 --max-new-tokens 2 --pick 0 -o {out}",
        check_swept,
        "trials.json",
    ),
    "steering": Command(
        "steering bundle --probes probes.jsonl --judge lab --limit 1 --edges 0,1 --max-new-tokens 2 -o {out}",
        check_page("steering", "prosocial.steering"),
        "steering.json",
        codes=(0, 1),
    ),
    "audit": Command(
        "audit edited --base base --vector vector -o {out}", check_page("audit", "prosocial.audit/"), "audit.json"
    ),
    "config score": Command(
        "config score base --probes probes.jsonl --judge lab --configs configs.jsonl --limit 2 --max-new-tokens 2 "
        "-o {out}",
        check_scored,
        "cosa_score.json",
        codes=(0, 3),
    ),
    "config compile": Command("config compile draft.json --bundle bundle --yes -o {out}", NamedConfig.read),
    "config sign": Command(
        "config sign config.json --bundle bundle --key own.pem --valid-days 1 -o {out}",
        lambda out: read_json(out)["dsseEnvelope"],
    ),
    "reward label": Command("reward label pairs.jsonl --judge lab -o {out}", lambda out: read_jsonl(out)[11]),
    "gate label": Command("gate label replies.jsonl --judge lab -o {out}", lambda out: read_jsonl(out)[7]),
    "tune": Command(
        "tune base --rows chat.jsonl --method sft --set most_steps=2 --set batch_size=2 --set checkpoint_every=1 "
        "--out {out}",
        check_checkpoint,
    ),
    "reward train": Command(
        "reward train edited --pairs pairs.jsonl --attributes empathy,helpfulness --set steps=2 --set batch_size=4 "
        "-o {out}",
        check_reward,
    ),
    "distil": Command(
        "distil edited --reward reward --pairs pairs.jsonl --max-new-tokens 3 --set rank=4 --set steps=5 "
        "--set passes=1 --set on_policy=2 --set plausible_k=16 -o {out}",
        CompactHead.load,
    ),
    "gate train": Command(
        "gate train edited --replies replies.jsonl --set rank=4 --set steps=20 --set batch_size=32 -o {out}",
        HarmGate.load,
    ),
    "gate calibrate": Command(
        "gate calibrate steered --probes calibration.jsonl --judge refusal --set candidates=[0.9] --set max_leak=1.0 "
        "-o {out}",
        check_calibrated,
    ),
    "export": Command("export steered -o {out}", check_manifest),
    "run": Command("run recipe.yaml --out {out}", check_run, "report"),
}


def make_place(folder: Path, server: ForkServer) -> None:
    """Fill a folder with everything that the commands read, by one run of a pico recipe."""
    recipe = write_recipe(folder, n_layers=1)  # tracing takes most of the time of export
    made = server.run(["run", str(recipe), "--out", "made"])
    assert made.code == 0, made.printed[-2000:]
    for stage in ("harmful", "vector", "reward", "head", "gate", "steered", "bundle"):
        shutil.copytree((folder / "made" / stage).resolve(), folder / stage)
    shutil.copytree((folder / "made" / "edit").resolve(), folder / "edited")
    (folder / "model").rename(folder / "base")
    recipe.write_text(recipe.read_text().replace(str(folder / "model"), str(folder / "base")))
    for path in (folder / "data").iterdir():
        shutil.copy(path, folder / path.name)
    turns = [{"role": "user", "content": "how do i bake bread?"}, {"role": "assistant", "content": "mix."}]
    (folder / "chat.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 4)
    draft = {"schema": "prosocial.safety_config/1", "name": "story", "text": "stories may be violent"}
    (folder / "draft.json").write_text(json.dumps(draft))
    (folder / "config.json").write_text(json.dumps(draft | {"allowed": []}))
    (folder / "configs.jsonl").write_text(json.dumps({"name": "a", "text": "b", "allowed": []}) + "\n")
    write_gguf(folder / "model.gguf")
    make_key(folder, "own")
    scope = {"key": "own.pub", "allowed": [], "highest_threshold": 0.5}
    trust = {"schema": "prosocial.trust/1", "keys": {"own": scope}, "revoked_serials": [], "revoked_keys": []}
    (folder / "trust.json").write_text(json.dumps(trust))
