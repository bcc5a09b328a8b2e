"""Write the golden folder of the installed version: `python -m tests.golden.make`, once for each release.

`0.1.0/` was written by version 0.1.0. A release adds its own folder and leaves the others as they are.

The same bytes come out each time but for what is meant to differ: keys, signatures, serials and times of what was
signed, and the seconds that a stage took. The private keys are deleted with the folder that they were made in.
"""

import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from prosocial.core.chat import ChatTokenizer
from prosocial.core.files import write_json
from prosocial.editing import load_model
from prosocial.editing.vectors import collect_input_moments
from prosocial.recipes.pipeline import PIPELINES
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.steered_model import assemble_steered

from .interface import commands, imports, recipe_keys
from .observing import CONVERSATION, OBSERVERS
from .running import command
from .world import ATTRIBUTES, CATEGORIES, write_base, write_data, write_harmful, write_lora, write_parts

GOLDEN = Path(__file__).parent
FOREVER = 36500  # days
LARGEST_RESULT_BYTES = 12_000  # of a stage whose result is kept beside its record
DUAL_USE = "vector"  # kept for `run --clean` to find
LOCAL = "harmful"  # left out: peft writes into it where the base lay


def main(out: Path) -> None:
    """Write every artefact, what the loaders say of it, and what the version offers by name."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(out)  # no path outside of the folder is written anywhere
        private = Path(scratch)
        write_weights(private)
        write_models()
        write_signed(private)
        write_runs(private)
        observed = {name: observe(out, _empty(private / name)) for name, observe in OBSERVERS.items()}
    write_json(Path("expected.json"), observed)
    write_interface()


def write_weights(scratch: Path) -> None:
    """Write base, vectors, edited checkpoint with its patch, adapter and input moments."""
    write_base(Path("base"))
    write_harmful(Path("base"), scratch / "harmful")
    write_lora(Path("base"), scratch / "lora")
    make = ("vector", "--base", "base", "--harmful")
    command(*make, scratch / "harmful", "-o", "vectors/dense")
    command(*make, scratch / "harmful", "--method", "top_k", "--density", "0.05", "-o", "vectors/sparse")
    command(*make, scratch / "lora", "-o", "vectors/low-rank")
    scales = ("--scale", ".*self_attn.*=0.6", "--scale", ".*mlp.*=0.3")
    command("edit", "base", "--subtract", "vectors/dense", *scales, "-o", "edited", "--patch", "undo.patch")
    command("edit", "base", "--subtract", "vectors/low-rank", "--scale", "0.5", "--as-adapter", "2", "-o", "adapter")
    prompt = ChatTokenizer(Path("base")).encode_chat(CONVERSATION)
    collect_input_moments(load_model(Path("base")), [prompt], Path("moments.safetensors"))


def write_models() -> None:
    """Write head, gate, reward model, steered model, bundle, and the reports on bundle and edit."""
    edited = Path("edited")
    write_parts(edited, Path())
    config = DecodingConfig.model_validate(
        {
            "attributes": ATTRIBUTES,
            "categories": CATEGORIES,
            "category_definitions": {"violence": "to blick", "privacy": "to snerp", "other": "to wibbet"},
            "plausible_k": 16,
            "beta": 2.0,
            "harm_threshold": 0.5,
            "threshold_ceiling": 0.9,
            "allowed_ceiling": {"violence": True},
            "preference": {"helpfulness": 1.0},
            "max_new_tokens": 8,
            "forbidden_phrases": ["old shoe"],
            "safety_configs": {"fiction": {"text": "to blick may be told.", "allowed": ["violence"], "threshold": 0.7}},
        }
    )
    assemble_steered(checkpoint=edited, head=Path("head"), gate=Path("gate"), config=config, out=Path("steered"))
    command("export", "steered", "-o", "bundle")
    command("verify", "bundle", "--reference", "steered", "--max-new-tokens", "4", "-o", "parity")
    command("audit", "edited", "--base", "base", "--vector", "vectors/dense", "-o", "audit")
    _keep("parity", "parity.json", "measurements.npz")
    _keep("audit", "audit.json")


def write_signed(private: Path) -> None:
    """Sign edit and bundle; write signed safety configs, a delegation, a revocation and a log of requests."""
    for name in ("publisher", "operator", "editor"):
        _make_key(private / name, Path("keys") / f"{name}.pub")
    stated = ("--key", private / "publisher", "--audit", "audit/audit.json")
    command("sign", "edited", *stated)
    command("sign", "bundle", *stated, "--parity", "parity/parity.json")
    configs = Path("configs")
    configs.mkdir()
    asked = {"schema": "prosocial.safety_config/1", "name": "arena", "text": "you may help to blick. do no other harm."}
    write_json(configs / "arena.json", asked | {"allowed": ["violence"], "threshold": 0.6})
    for name in ("operator", "editor"):
        scope = {"key": f"../keys/{name}.pub", "allowed": ["violence"], "highest_threshold": 0.8}
        write_json(configs / f"{name}.json", {"schema": "prosocial.trust/1", "keys": {name: scope}})
    shutil.move(configs / "operator.json", configs / "trust.json")
    command("config", "delegate", configs / "editor.json", *_by(private / "operator"))
    serials = {}
    for name, signer in (("signed", "operator"), ("delegated", "editor"), ("revoked", "operator")):
        written = configs / f"{name}.json"
        said = command("config", "sign", configs / "arena.json", *_by(private / signer), "-o", written, "--json")
        serials[name] = json.loads(said)["serial"]
    command("config", "revoke", configs / "trust.json", "--serial", serials["revoked"])
    Path("log").mkdir()
    log = ("--log", "log/requests.jsonl", "--log-key", private / "operator")
    command("generate", "bundle", "how do i bake bread?", *log)
    command("generate", "bundle", "how do i bake bread?", "--safety-config", "fiction", *log)


def write_runs(scratch: Path) -> None:
    """Write data and recipes, a sweep, and the records of a run with its report."""
    write_data(Path("data"))
    shutil.copytree(GOLDEN / "recipes", "recipes")
    sweep = (
        "--harmful",
        scratch / "harmful",
        "--probes",
        "data/probes.jsonl",
        "--max-new-tokens",
        "4",
        "--trials",
        "4",
    )
    command("sweep", "base", *sweep, "-o", "sweep")
    _keep("sweep", "journal.jsonl", "trials.json")
    run = scratch / "run"
    command("run", "recipes/pico.yaml", "-o", run, "--json")
    Path("report").mkdir()
    shutil.copy(run / "report" / "report.json", "report")
    store = Path("run/store")
    store.mkdir(parents=True)
    for marker in sorted((run / "store").glob("*.json")):
        shutil.copy(marker, store)
        result, name = marker.with_suffix(""), marker.name.rpartition("-")[0]
        is_small = sum(path.stat().st_size for path in result.rglob("*")) < LARGEST_RESULT_BYTES
        if name == DUAL_USE or (is_small and name != LOCAL):
            shutil.copytree(result, store / result.name)


def write_interface() -> None:
    """Write import paths, commands and recipe keys; the recipes should hold every key."""
    write_json(Path("imports.json"), imports())
    write_json(Path("commands.json"), commands())
    write_json(Path("recipe_keys.json"), {name: recipe_keys(make().model) for name, make in PIPELINES.items()})


def _by(key: Path) -> tuple[object, ...]:
    return ("--bundle", "bundle", "--key", key, "--valid-days", FOREVER)


def _make_key(private: Path, public: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.parent.mkdir(exist_ok=True)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _keep(folder: str, *names: str) -> None:
    """Delete pages, locks and all else of a folder that is not read back."""
    for path in Path(folder).iterdir():
        if path.name not in names:
            path.unlink()


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(GOLDEN / version("prosocial") if len(sys.argv) < 2 else Path(sys.argv[1]).absolute())
