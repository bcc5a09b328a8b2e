"""Inspection: everything that 0.1.0 wrote is recognised, and what is not ours gets one clear line."""

import contextlib
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.core.artefacts import MARKS
from prosocial.core.errors import ArtefactError, InputError
from prosocial.recipes.inspection.describing import inspect_artefact
from prosocial.recipes.inspection.runs import EARLIER
from prosocial.recipes.workflow.store import Store

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
KINDS = {
    "base": "checkpoint",
    "edited": "checkpoint",
    "adapter": "LoRA adapter",
    "vectors/dense": "harm vector",
    "vectors/low-rank": "harm vector",
    "vectors/sparse": "harm vector",
    "head": "compact head",
    "gate": "gate",
    "reward": "reward model",
    "steered": "steered folder",
    "bundle": "bundle",
    "run": "run",
    "run/store": "run",
    "run/store/gate-9c6b10c3a3ce": "gate",
    "run/store/head-66c3d9984ec9": "compact head",
    "run/store/vector-717338d6dd11": "harm vector",
    "run/store/data-9fe7957f320e": "result of a stage",
    "run/store/pairs-d92b7e47cdd1": "result of a stage",
    "run/store/replies-b4394f90bb1e": "result of a stage",
    "run/store/threshold-9f2737b64d18": "calibration of the gate's threshold",
    "run/store/threshold-9f2737b64d18/calibration.json": "calibration of the gate's threshold",
    "run/store/gate-9c6b10c3a3ce.json": "marker of a stage's result",
    "sweep": "sweep",
    "sweep/trials.json": "sweep",
    "sweep/journal.jsonl": "journal of a sweep",
    "report": "report",
    "report/report.json": "report",
    "audit": "audit report",
    "audit/audit.json": "audit report",
    "parity": "parity report",
    "parity/parity.json": "parity report",
    "edited/edit_record.json": "edit record",
    "edited/model.sig": "signature of a folder",
    "edited/signatures/edit.intoto.json": "signed statement",
    "adapter/edit_adapter.json": "record of an edit as an adapter",
    "bundle/parity.json": "check of an exported graph",
    "bundle/signatures/config-keys.sigstore": "signed list of keys for safety configs",
    "undo.patch": "undo patch",
    "moments.safetensors": "input moments",
    "configs/arena.json": "safety config",
    "configs/signed.json": "signed safety config",
    "configs/delegated.json": "signed safety config",
    "configs/revoked.json": "signed safety config",
    "configs/trust.json": "trust file",
    "configs/editor.json": "trust file",
    "keys/operator.pub": "public key",
    "log/requests.jsonl": "audit log",
    "log/requests.jsonl.head.json": "signed head of an audit log",
    "data/probes.jsonl": "probes",
    "data/calibration.jsonl": "probes",
    "data/pairs.jsonl": "labelled pairs",
    "data/replies.jsonl": "labelled replies",
    "data/harmful.jsonl": "replies",
    "data/prompts.jsonl": "prompts",
    "data/gate_prompts.jsonl": "prompts",
    **{f"recipes/{name}.yaml": "recipe" for name in ("pico", "steering", "steering-lab", "cosalign", "cosalign-lab")},
}
# Folders that only group others, parts of a folder, and what the golden tests themselves keep.
NOT_OURS = ("data", "configs", "keys", "log", "recipes", "vectors", "expected.json", "imports.json", "commands.json")


@pytest.mark.parametrize("path", KINDS)
def test_what_an_older_version_wrote_is_recognised(path: str) -> None:
    found = inspect_artefact(GOLDEN / path, fingerprint=False)

    assert found["kind"] == KINDS[path] == next(iter(found.values()))
    json.dumps(found, allow_nan=False)


def test_every_folder_of_the_older_version_is_in_the_table() -> None:
    folders = {path.name for path in GOLDEN.iterdir() if path.is_dir()}

    assert folders == {path.partition("/")[0] for path in KINDS if (GOLDEN / path.partition("/")[0]).is_dir()}


@pytest.mark.parametrize("path", NOT_OURS)
def test_anything_else_gets_one_line_that_says_what_was_looked_for(path: str) -> None:
    with pytest.raises(ArtefactError) as caught:
        inspect_artefact(GOLDEN / path)

    assert "\n" not in str(caught.value)
    assert ("manifest.json (bundle)" if (GOLDEN / path).is_dir() else "prosocial.trust") in str(caught.value)


STRANGE = {"a.bin": b"\x80\x02pickle", "a.json": b"{", "a.txt": b"", "a.yaml": b"- 1", "a.jsonl": b'{"x": 1}'}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_gets_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(STRANGE[name])

    assert main(["inspect", str(tmp_path / name)]) == 2


def test_a_steered_folder_says_its_limits_and_its_edit() -> None:
    found = inspect_artefact(GOLDEN / "steered")

    assert (found["attributes"], found["categories"]) == (["empathy", "helpfulness"], ["violence", "privacy", "other"])
    assert found["harm_threshold"] <= found["threshold_ceiling"]
    assert found["may_be_allowed"] == ["violence"] and found["safety_configs"] == ["fiction"]
    assert found["edit"]["agrees"] is True


def test_a_bundle_says_its_form_and_that_its_signatures_were_not_checked() -> None:
    found = inspect_artefact(GOLDEN / "bundle")
    sizes = [path.stat().st_size for path in GOLDEN.joinpath("bundle").rglob("*") if path.is_file()]

    assert (found["bundle_kind"], found["profile"], found["precision"]) == ("steered", "ort", "fp32")
    assert 0 < found["size_bytes"] < sum(sizes)
    assert {"model.sig", "signatures/export.intoto.json"} <= {*found["signatures"]["files"]}
    assert found["signatures"]["verdict"].startswith("not checked")


def test_a_run_says_which_stages_are_done(tmp_path: Path) -> None:
    """The golden run keeps the markers of stages whose results are not kept; a cut file makes a result broken."""
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    states = _states(tmp_path / "run")
    assert states["gate"] == states["vector"] == EARLIER and states["bundle"] == "deleted or not whole"

    (tmp_path / "run" / "store" / "gate-9c6b10c3a3ce" / "gate_config.json").write_text("{}")
    assert _states(tmp_path / "run") == states | {"gate": "deleted or not whole"}


def test_a_stage_of_this_version_is_done_while_every_byte_is_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.partial("gate", "0" * 64) as folder:
        shutil.copytree(GOLDEN / "gate", folder, dirs_exist_ok=True)
        store.commit(folder, {"stage": "gate", "key": "0" * 64, "summary": "made", "seconds": 1.0})
    assert _states(tmp_path) == {"gate": "done"}

    weights = next((tmp_path / "store").glob("gate-*/gate.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert _states(tmp_path) == {"gate": "deleted or not whole"}


def _states(run: Path) -> dict[str, Any]:
    return {stage["stage"]: stage["state"] for stage in inspect_artefact(run)["stages"]}


def test_a_link_of_a_run_is_the_result_of_its_stage(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    (tmp_path / "run" / "gate").symlink_to("store/gate-9c6b10c3a3ce")
    found = inspect_artefact(tmp_path / "run" / "gate")

    assert (found["kind"], found["stage"]["stage"], found["stage"]["state"]) == ("gate", "gate", EARLIER)


def test_a_signed_config_says_what_it_allows_and_that_nobody_checked_it() -> None:
    found = inspect_artefact(GOLDEN / "configs" / "signed.json")

    assert (found["config"]["name"], found["config"]["allowed"]) == ("arena", ["violence"])
    assert found["signature"] == "not checked"


def test_rows_are_counted() -> None:
    probes, replies = (inspect_artefact(GOLDEN / "data" / f"{name}.jsonl") for name in ("probes", "replies"))

    assert sum(probes["kinds"].values()) == probes["n_rows"]
    assert replies["n_harmful"] == replies["categories"]["other"] < replies["n_rows"]


def test_a_model_with_a_manifest_of_somebody_else_is_a_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "base", tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text('{"name": "a web page"}')

    assert inspect_artefact(tmp_path / "model", fingerprint=False)["kind"] == "checkpoint"


BREAKS = (None, "x", 3, ["x"], {"x": {}}, [{"x": 1}])


@pytest.mark.parametrize("path", [path for path in KINDS if path.endswith((".json", ".jsonl", ".sig", ".sigstore"))])
def test_a_value_of_another_type_is_shown_or_refused_and_never_breaks_it(path: str, tmp_path: Path) -> None:
    first, *more = (GOLDEN / path).read_text(encoding="utf-8").splitlines() if path.endswith("l") else [""]
    document = json.loads(first or (GOLDEN / path).read_text(encoding="utf-8"))
    for key, value in [(key, value) for key in document for value in BREAKS]:
        lines = [json.dumps(document | {key: value}), *more]
        (tmp_path / Path(path).name).write_text("\n".join(lines), encoding="utf-8")
        with contextlib.suppress(InputError):
            assert inspect_artefact(tmp_path / Path(path).name)["kind"]


@pytest.mark.parametrize("key", ["stage", "key", "files", "seconds", "summary"])
def test_a_broken_marker_counts_as_none(key: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    marker = tmp_path / "run" / "store" / "gate-9c6b10c3a3ce.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {key: None}))

    assert "gate" not in _states(tmp_path / "run")


@pytest.mark.parametrize("path", ["steered", "bundle", "run", "configs/signed.json", "data/pairs.jsonl"])
def test_the_command_prints_a_table_or_one_object(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN / path), "--no-fingerprint"]) == 0
    assert KINDS[path] in capsys.readouterr().out
    assert main(["inspect", str(GOLDEN / path), "--no-fingerprint", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == KINDS[path]


WRITERS = {
    "prosocial.editing.vectors.description": ("SCHEMA", "DESCRIPTION_NAME"),
    "prosocial.editing.vectors.adapter_config": (None, "CONFIG_NAME"),
    "prosocial.editing.vectors.input_moments": ("FORMAT", None),
    "prosocial.editing.edits.patch": ("SCHEMA", None),
    "prosocial.editing.edits.record": ("SCHEMA", None),
    "prosocial.editing.edits.adapter": ("SCHEMA", None),
    "prosocial.steering.decoding.config": ("SCHEMA", "DECODING_FILE"),
    "prosocial.steering.head": ("SCHEMA", "CONFIG_FILE"),
    "prosocial.steering.gate": ("SCHEMA", "CONFIG_FILE"),
    "prosocial.steering.authorisation.trust": ("SCHEMA", None),
    "prosocial.steering.authorisation.authorisation": ("PREDICATE_TYPE", None),
    "prosocial.steering.authorisation.delegation": ("PREDICATE_TYPE", None),
    "prosocial.steering.audit_log.log": ("PREDICATE_TYPE", None),
    "prosocial.steering.configs.safety_config": ("SCHEMA", None),
    "prosocial.core.signing.model_signature": ("PREDICATE_TYPE", None),
    "prosocial.training.reward.model": ("SCHEMA", None),
    "prosocial.export.bundle_files.manifest": ("SCHEMA", "MANIFEST_FILE"),
    "prosocial.evaluation.sweep.sweep_document": ("SCHEMA", "JSON_FILE"),
    "prosocial.evaluation.report.report_document": ("SCHEMA", "JSON_FILE"),
    "prosocial.evaluation.comparison.report": ("SCHEMA", None),
    "prosocial.evaluation.cosa_score.cosa_score_document": ("SCHEMA", None),
    "prosocial.evaluation.steering_scores.steering_scores_document": ("SCHEMA", None),
    "prosocial.evaluation.gate.calibration": ("SCHEMA", None),
    "prosocial.verify.parity.files": (None, "JSON_FILE"),
    "prosocial.verify.audit.audit_document": ("SCHEMA", None),
    "prosocial.verify.signing.chain": ("SCHEMA", None),
    "prosocial.evaluation.gate.threshold_choice": ("SCHEMA", "CALIBRATION_FILE"),
    "prosocial.recipes.cosalign.rows": ("SCHEMA", "COUNTS_FILE"),
    "prosocial.recipes.workflow.store": ("SCHEMA", None),
}


@pytest.mark.parametrize("module", WRITERS)
def test_the_table_holds_what_the_writers_write(module: str) -> None:
    schema, file = (name and getattr(import_module(module), name) for name in WRITERS[module])

    assert any(schema in (None, mark.schema) and file in (None, mark.file) for mark in MARKS)
