"""What the public loaders say of a folder of golden artefacts: `make.py` writes it down, the test compares.

Every observer takes the folder of a version and an empty one to work in, and returns plain JSON. What is compared to
the last bit are digests and token ids; other numbers depend on the processor in their last digits.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.signing import TrustedKey
from prosocial.editing import Checkpoint, HarmVector, load_model
from prosocial.editing.edits import read_record, undo_edit
from prosocial.export import Bundle, check_manifest
from prosocial.steering.audit_log.log import check_log
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import NamedConfig, RefusedConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.steering.steered_model import SteeredModel
from prosocial.verify.audit import AuditReport, audit_model
from prosocial.verify.signing import check_chain

from .running import command

Observer = Callable[[Path, Path], dict[str, Any]]
CONVERSATION = [{"role": "system", "content": "be kind."}, {"role": "user", "content": "i feel low. <|end|>"}]
WITHIN = datetime(2100, 1, 1, tzinfo=UTC)  # what was signed holds for a hundred years


def base(golden: Path, _: Path) -> dict[str, Any]:
    tokenizer = ChatTokenizer(golden / "base")
    return {
        "fingerprint": Checkpoint.open(golden / "base").fingerprint(),
        "parameters": sum(each.numel() for each in load_model(golden / "base").parameters()),
        "template": tokenizer.template_digest,
        "prompt_ids": tokenizer.encode_chat(CONVERSATION),
        "end_ids": list(tokenizer.end_ids),
    }


def vectors(golden: Path, _: Path) -> dict[str, Any]:
    return {kind: _vector(HarmVector.open(golden / "vectors" / kind)) for kind in ("dense", "sparse", "low-rank")}


def _vector(vector: HarmVector) -> dict[str, Any]:
    deltas = [vector.delta(name) for name in vector.names]
    stored = {summary.storage for summary in vector.summary.tensors.values()}
    exact = {} if stored == {"low_rank"} else {"digest": _digest(each.numpy().tobytes() for each in deltas)}
    return {
        "names": list(vector.names),
        "storage": sorted(stored),
        "base": vector.base_fingerprint,
        "harmful": vector.harmful_fingerprint,
        "method": vector.summary.method,
        "norms": [float(each.norm()) for each in deltas],
        **exact,
    }


def edited(golden: Path, work: Path) -> dict[str, Any]:
    record, folder = read_record(golden / "edited"), golden / "edited"
    report = audit_model(folder, base=golden / "base", vectors=[golden / "vectors" / "dense"])
    return {
        "fingerprint": Checkpoint.open(folder).fingerprint(),
        "recorded": record.result.fingerprint,
        "coefficients": [[each.decimal, each.hex] for term in record.terms for each in term.coefficients],
        "audit": {"verdict": report.verdict, "levels": {str(each.level): each.verdict for each in report.levels}},
        "undone": undo_edit(folder, work / "restored", patch=golden / "undo.patch"),
    }


def audit_report(golden: Path, _: Path) -> dict[str, Any]:
    report = AuditReport.model_validate_json((golden / "audit" / "audit.json").read_text(encoding="utf-8"))
    return {"verdict": report.verdict, "fingerprint": report.fingerprint, "levels": len(report.levels)}


def adapter(golden: Path, _: Path) -> dict[str, Any]:
    from peft import PeftModel

    plain = load_model(golden / "base").state_dict()
    adapted = PeftModel.from_pretrained(load_model(golden / "base"), str(golden / "adapter"))
    merged = adapted.merge_and_unload().state_dict()
    moved = {name: float((value - plain[name]).norm()) for name, value in merged.items()}
    return {"moved": {name: norm for name, norm in moved.items() if norm}}


def parts(golden: Path, _: Path) -> dict[str, Any]:
    head, gate = CompactHead.load(golden / "head"), HarmGate.load(golden / "gate")
    return {
        "head": {"attributes": list(head.attributes), "extra": head.extra, **_module(head)},
        "gate": {"categories": list(gate.categories), **_module(gate)},
    }


def _module(part: Any) -> dict[str, Any]:
    state = part.state_dict()
    digest = _digest(state[name].numpy().tobytes() for name in sorted(state))
    return {"checkpoint": part.checkpoint_fingerprint, "tensors": sorted(state), "digest": digest}


def reward(golden: Path, _: Path) -> dict[str, Any]:
    import torch

    from prosocial.training.reward import RewardModel

    fingerprint = Checkpoint.open(golden / "edited").fingerprint()
    model = RewardModel.load(
        golden / "reward", load_model(golden / "edited", dtype=torch.float32), checkpoint_fingerprint=fingerprint
    )
    ids = torch.tensor([ChatTokenizer(golden / "base").encode_chat(CONVERSATION)])
    with torch.no_grad():
        logits = [
            model.logits(ids, torch.ones_like(ids), preference)
            for preference in (None, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        ]
    return {
        "attributes": list(model.config.attributes),
        "shape": list(logits[0].shape),
        "shifts": [float((each - logits[0]).norm()) for each in logits[1:]],
    }


def steered(golden: Path, _: Path) -> dict[str, Any]:
    model, tokenizer = SteeredModel.open(golden / "steered"), ChatTokenizer(golden / "steered")
    return _replies(lambda steering: model.generate([CONVERSATION], tokenizer, steering=steering))


def bundle(golden: Path, _: Path) -> dict[str, Any]:
    manifest, opened = check_manifest(golden / "bundle"), Bundle.open(golden / "bundle", threads=1)
    facts = {name: manifest[name] for name in ("kind", "profile", "precision", "opset", "checkpoint_fingerprint")}
    return {
        "manifest": facts | {"files": sorted(manifest["files"])},
        **_replies(lambda steering: opened.generate([CONVERSATION], steering=steering)),
    }


def _replies(generate: Callable[[Steering], Any]) -> dict[str, Any]:
    """Return greedy replies as they come, and under a preference and a named safety config."""
    steerings = {
        "default": Steering(),
        "empathy": Steering(preference={"empathy": 1.0}, reward_scale=4.0),
        "fiction": Steering(safety_config="fiction"),
    }
    replies = {name: generate(steering)[0] for name, steering in steerings.items()}
    return {
        name: {
            "token_ids": list(reply.token_ids),
            "finish": reply.finish,
            "smallest_safe_set": reply.min_safe_set_size,
            "max_risk": dict(reply.max_risk),
        }
        for name, reply in replies.items()
    }


def parity(golden: Path, work: Path) -> dict[str, Any]:
    """The stored measurements, judged again by the command."""
    said = command("verify", golden / "bundle", "--measurements", golden / "parity" / "measurements.npz", "--json")
    document = json.loads(said)
    stored = json.loads((golden / "parity" / "parity.json").read_text(encoding="utf-8"))
    return {"verdict": document["verdict"], "stored": stored["verdict"], "gates": _verdicts(document["gates"])}


def _verdicts(gates: list[dict[str, Any]]) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in gates}


def signature(golden: Path, _: Path) -> dict[str, Any]:
    keys = [TrustedKey.read(golden / "keys" / "publisher.pub")]
    report = check_chain(golden / "bundle", keys=keys, base=golden / "base", checkpoint=golden / "edited")
    strangers = [TrustedKey.read(golden / "keys" / "editor.pub")]
    return {
        "verdict": report.verdict,
        "links": [[link.name, str(link.state), link.signed_by] for link in report.links],
        "by a stranger": check_chain(golden / "bundle", keys=strangers).verdict,
    }


def safety_configs(golden: Path, _: Path) -> dict[str, Any]:
    opened, folder = Bundle.open(golden / "bundle", threads=1), golden / "configs"
    trust = TrustStore.read([folder / "trust.json"])
    draft = NamedConfig.read(folder / "arena.json")
    decided: dict[str, Any] = {"draft": {"name": draft.name, "digest": draft.digest}}
    for name in ("signed", "delegated", "revoked"):
        try:
            config = opened.authorise(folder / f"{name}.json", trust=trust, clock=lambda: WITHIN)
            decided[name] = {"name": config.name, "by": config.key_name, "digest": config.config.digest}
        except RefusedConfig as refused:
            decided[name] = {"refused": str(refused.reason)}
    return decided


def audit_log(golden: Path, _: Path) -> dict[str, Any]:
    keys = [TrustedKey.read(golden / "keys" / "operator.pub")]
    report = check_log(golden / "log" / "requests.jsonl", golden / "log" / "requests.jsonl.head.json", keys)
    return {"verdict": report.verdict, "lines": report.lines, "signed": report.signed}


def sweep(golden: Path, work: Path) -> dict[str, Any]:
    """The journal as optuna reads it, and the trials in it and in the document as ours."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from prosocial.evaluation.sweep import Trial

    shutil.copy(golden / "sweep" / "journal.jsonl", work)
    storage = JournalStorage(JournalFileBackend(str(work / "journal.jsonl")))
    study = optuna.load_study(study_name="sweep", storage=storage)
    document = json.loads((golden / "sweep" / "trials.json").read_text(encoding="utf-8"))
    trials = [Trial.from_json(row) for row in document["trials"]]
    kept = [Trial.from_json(each.user_attrs["trial"]) for each in study.get_trials()]
    return {
        "schema": document["schema"],
        "journal is the document": kept == trials,
        "trials": [[str(each.choice), each.state, each.fingerprint] for each in trials],
    }


def report(golden: Path, _: Path) -> dict[str, Any]:
    """The report, as the terminal shows it."""
    from io import StringIO

    from rich.console import Console

    from prosocial.evaluation.report.terminal import print_report

    document = json.loads((golden / "report" / "report.json").read_text(encoding="utf-8"))
    shown = StringIO()
    print_report(document, Console(file=shown, width=200))
    return {"schema": document["schema"], "shows its headline": document["headline"]["verdict"] in shown.getvalue()}


def moments(golden: Path, work: Path) -> dict[str, Any]:
    """A vector cleared of the directions that the file names."""
    from prosocial.editing.vectors import InputMoments, vector_from_runs

    file = golden / "moments.safetensors"
    names = InputMoments.open(file).names
    cleared = vector_from_runs(
        harmful=[golden / "vectors" / "dense"], out=work / "cleared", method="null_space", activations=str(file)
    )
    return {"names": list(names), "norms": [float(cleared.delta(name).norm()) for name in cleared.names]}


def data(golden: Path, _: Path) -> dict[str, Any]:
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.training.reward import pairs_of

    probes = read_probes(golden / "data" / "probes.jsonl")
    lines = (golden / "data" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = pairs_of(map(json.loads, lines), attributes=["empathy", "helpfulness"])
    return {
        "probes": [probe.to_json() | {"cluster": probe.cluster} for probe in (probes[0], probes[-1])],
        "n_probes": len(probes),
        "signs": [pair.signs(["empathy", "helpfulness"]) for pair in pairs[:2]],
    }


def run_store(golden: Path, work: Path) -> dict[str, Any]:
    """A store of this version: what is whole in it, what is dual-use, and that it is no obstacle to a new plan.

    Markers of 0.1.0 hold the sizes of files, which prove nothing: none of its results counts as whole.
    """
    from prosocial.recipes.workflow.store import Store

    shutil.copytree(golden / "run", work / "run")
    store = Store(work / "run" / "store")
    markers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(store.folder.glob("*.json"))]
    whole = [each["stage"] for each in markers if store.marker(each["stage"], each["key"])]
    planned = json.loads(command("run", golden / "recipes/pico.yaml", "-o", work / "run", "--dry-run", "--json"))
    return {
        "stages": sorted(each["stage"] for each in markers),
        "whole": sorted(whole),
        "dual_use": [path.name.rpartition("-")[0] for path in store.dual_use_results()],
        "planned again": len(planned) > 0,
    }


def _digest(pieces: Any) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


OBSERVERS: dict[str, Observer] = {
    each.__name__: each
    for each in (
        base,
        vectors,
        edited,
        audit_report,
        adapter,
        parts,
        reward,
        steered,
        bundle,
        parity,
        signature,
        safety_configs,
        audit_log,
        sweep,
        report,
        moments,
        data,
        run_store,
    )
}
