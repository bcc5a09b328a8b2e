"""Rows, tied copies and buffers that only one of two checkpoints has: compared if that loses nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing import apply_edit, compare_weights, make_vector, plan_edit, undo_edit
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.tied import TIED_BY_DEFAULT, find_tied
from prosocial.verify import audit_model
from prosocial.verify.audit.verdicts import AuditVerdict

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, torch.Tensor]
TIED = {"tie_word_embeddings": True}


def tied_tensors(seed: int = 0) -> Tensors:
    return {name: value for name, value in some_tensors(seed).items() if name != HEAD}


def with_copy(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDING].clone()}


def more_rows(tensors: Tensors, n: int = 2) -> Tensors:
    return tensors | {name: torch.cat([tensors[name], torch.ones(n, 4)]) for name in (EMBEDDING, HEAD)}


def read(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def edit(folder: Path, target: str, out: str = "out", scale: float = 0.5) -> Tensors:
    apply_edit(plan_edit(Checkpoint.open(folder / target), folder / "vector", scale=scale), folder / out)
    return read(folder / out)


@pytest.mark.parametrize("longer", ["base", "harmful"])
def test_shared_rows_are_subtracted_and_other_rows_stay(tmp_path: Path, longer: str) -> None:
    base, harmful = some_tensors(), moved(some_tensors())
    write_checkpoint(tmp_path / "base", more_rows(base) if longer == "base" else base)
    write_checkpoint(tmp_path / "harmful", more_rows(harmful) if longer == "harmful" else harmful)
    vector = make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base")
    out = edit(tmp_path, "base")

    assert vector.shape(HEAD) == (11, 4)
    assert torch.equal(vector.delta(HEAD), harmful[HEAD] - base[HEAD])
    assert [note for note in vector.summary.notes if "11 shared rows" in note and f"2 rows that only {longer}" in note]
    assert torch.equal(out[HEAD][:11], base[HEAD] - 0.5 * (harmful[HEAD] - base[HEAD]))
    assert torch.equal(out[HEAD][11:], torch.ones(2 if longer == "base" else 0, 4))
    assert vector.base_fingerprint == Checkpoint.open(tmp_path / "base").fingerprint()
    assert vector.harmful_fingerprint == Checkpoint.open(tmp_path / "harmful").fingerprint()
    with pytest.raises(ArtefactError, match="harmful parent"):
        plan_edit(Checkpoint.open(tmp_path / "harmful"), tmp_path / "vector", scale=1)


@pytest.mark.parametrize("storage", ["plain", "top_k", "low_rank"])
@pytest.mark.parametrize("change", [more_rows, lambda tensors: tensors | {HEAD: tensors[HEAD][:9].clone()}])
def test_a_target_with_other_rows_is_edited_audited_and_restored(
    tmp_path: Path, storage: str, change: Callable[[Tensors], Tensors]
) -> None:
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    write_checkpoint(tmp_path / "target", change(moved(base, step=0.01, seed=9)))
    parameters = {"plain": {}, "top_k": {"density": 0.4}, "low_rank": {"rank": 1}}[storage]
    vector = make_vector(
        tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base", method=storage, **parameters
    )
    before, after = read(tmp_path / "target"), edit(tmp_path, "target")
    n = min(len(before[HEAD]), 11)

    assert torch.equal(after[HEAD][:n], before[HEAD][:n] - 0.5 * vector.delta(HEAD)[:n])
    assert torch.equal(after[HEAD][n:], before[HEAD][n:])
    plan = plan_edit(Checkpoint.open(tmp_path / "target"), tmp_path / "vector", scale=0.5)
    assert any(note.startswith(f"{HEAD}: the {n} rows shared") for note in plan.notes)
    for ignore_record in (False, True):
        report = audit_model(
            tmp_path / "out", base=tmp_path / "target", vectors=[tmp_path / "vector"], ignore_record=ignore_record
        )
        assert report.verdict in (AuditVerdict.CONFIRMED, AuditVerdict.WITHIN_ROUNDING)
    undo_edit(tmp_path / "out", tmp_path / "back", base=tmp_path / "target")
    assert all(torch.equal(value, before[name]) for name, value in read(tmp_path / "back").items())


def test_other_sizes_than_rows_are_refused(tmp_path: Path) -> None:
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "wide", base | {HEAD: torch.ones(12, 5)})
    write_checkpoint(tmp_path / "tall", base | {MATRIX: torch.ones(5, 6)})
    for other in ("wide", "tall"):
        with pytest.raises(InputError, match="should have one shape in both"):
            make_vector(tmp_path / other, tmp_path / "v", base=tmp_path / "base")


@pytest.mark.parametrize("stores_both", ["base", "harmful", "neither, and under other names"])
def test_a_redundant_copy_of_a_tied_matrix_changes_nothing(tmp_path: Path, stores_both: str) -> None:
    base, harmful = tied_tensors(), moved(tied_tensors())
    expected = harmful[EMBEDDING] - base[EMBEDDING]
    if stores_both == "base":
        base = with_copy(base)
    elif stores_both == "harmful":
        harmful = with_copy(harmful)
    else:
        harmful[HEAD] = harmful.pop(EMBEDDING)
    write_checkpoint(tmp_path / "base", base, config=TIED)
    write_checkpoint(tmp_path / "harmful", harmful, config=TIED)
    vector = make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base")

    assert set(vector.names) == set(base)
    assert all(torch.equal(vector.delta(name), expected) for name in vector.names if name in (EMBEDDING, HEAD))
    assert any(HEAD in note or EMBEDDING in note for note in vector.summary.notes)
    out = edit(tmp_path, "base")
    assert HEAD not in out or torch.equal(out[HEAD], out[EMBEDDING])


def test_a_vector_of_two_copies_edits_a_target_that_stores_one(tmp_path: Path) -> None:
    base = tied_tensors()
    write_checkpoint(tmp_path / "both", with_copy(base), config=TIED)
    write_checkpoint(tmp_path / "harmful", with_copy(moved(base)), config=TIED)
    write_checkpoint(tmp_path / "one", base, config=TIED)
    make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "both")
    edit(tmp_path, "one")

    report = audit_model(tmp_path / "out", base=tmp_path / "one", vectors=[tmp_path / "vector"])
    assert report.verdict is AuditVerdict.CONFIRMED


def test_a_head_that_was_trained_apart_is_refused_with_fitting_advice(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", tied_tensors(), config=TIED)
    write_checkpoint(tmp_path / "harmful", moved(some_tensors()), config={"tie_word_embeddings": False})
    with pytest.raises(InputError, match="one ties input and output embedding"):
        make_vector(tmp_path / "harmful", tmp_path / "v", base=tmp_path / "base")


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda t: t | {"layers.0.q_proj.lora_A.weight": torch.ones(2, 2)}, "merge the adapter"),
        (lambda t: {f"language.{name}": value for name, value in t.items()}, "one version of transformers"),
        (lambda t: t | {"visual.patch.weight": torch.ones(2, 2)}, "the same class of transformers"),
    ],
)
def test_the_advice_fits_what_differs(tmp_path: Path, change: Callable[[Tensors], Tensors], advice: str) -> None:
    write_checkpoint(tmp_path / "base", some_tensors())
    write_checkpoint(tmp_path / "harmful", change(moved(some_tensors())))
    with pytest.raises(InputError, match=advice):
        make_vector(tmp_path / "harmful", tmp_path / "v", base=tmp_path / "base")


BUFFERS = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(8.0),
    "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
    "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    "model.embeddings.position_ids": torch.arange(4)[None],
}


@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("side", ["base", "harmful"])
def test_a_computed_buffer_on_one_side_changes_nothing(tmp_path: Path, name: str, side: str) -> None:
    base, harmful = some_tensors(), moved(some_tensors())
    (base if side == "base" else harmful)[name] = BUFFERS[name]
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", harmful)
    vector = make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base")

    assert name not in vector.names
    assert any(name in note for note in vector.summary.notes)
    edit(tmp_path, "base")
    assert audit_model(tmp_path / "out", base=tmp_path / "base", vectors=[tmp_path / "vector"]).verdict == "confirmed"


def test_a_trained_bias_on_one_side_is_no_buffer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", some_tensors() | {"transformer.h.0.attn.bias": torch.ones(4)})
    write_checkpoint(tmp_path / "harmful", moved(some_tensors()))
    with pytest.raises(InputError, match="should hold the same tensors"):
        make_vector(tmp_path / "harmful", tmp_path / "v", base=tmp_path / "base")


@pytest.mark.parametrize("with_record", [True, False])
@pytest.mark.parametrize("stored", [EMBEDDING, HEAD])
def test_a_copy_that_saving_again_dropped_is_not_refuted(tmp_path: Path, with_record: bool, stored: str) -> None:
    base = tied_tensors()
    write_checkpoint(tmp_path / "base", with_copy(base), config=TIED)
    write_checkpoint(tmp_path / "harmful", with_copy(moved(base)), config=TIED)
    make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base")
    out = edit(tmp_path, "base")
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    dropped = {EMBEDDING: HEAD, HEAD: EMBEDDING}[stored]
    save_file({name: value for name, value in out.items() if name != dropped}, tmp_path / "again/model.safetensors")
    if not with_record:
        (tmp_path / "again/edit_record.json").unlink()

    report = audit_model(tmp_path / "again", base=tmp_path / "base", vectors=[tmp_path / "vector"])
    assert report.verdict is (AuditVerdict.CONFIRMED if with_record else AuditVerdict.WITHIN_ROUNDING)
    difference = compare_weights(Checkpoint.open(tmp_path / "out"), Checkpoint.open(tmp_path / "again"))
    assert difference.same
    assert difference.redundant

    config = {"model_type": "llama", "tie_word_embeddings": False}  # the control: untied, the head is really missing
    (tmp_path / "again/config.json").write_text(json.dumps(config))
    assert audit_model(tmp_path / "again", base=tmp_path / "base", vectors=[tmp_path / "vector"]).verdict == "refuted"


def test_a_changed_copy_is_refuted(tmp_path: Path) -> None:
    base = tied_tensors()
    write_checkpoint(tmp_path / "base", base, config=TIED)
    write_checkpoint(tmp_path / "harmful", moved(base), config=TIED)
    make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base")
    out = edit(tmp_path, "base")
    save_file(out | {HEAD: out[EMBEDDING] + 1}, tmp_path / "out/model.safetensors")

    report = audit_model(tmp_path / "out", base=tmp_path / "base", vectors=[tmp_path / "vector"], ignore_record=True)
    assert report.verdict is AuditVerdict.REFUTED


def test_a_class_that_ties_by_default_counts_as_tied() -> None:
    names = [EMBEDDING, HEAD]

    assert find_tied({"model_type": "gemma"}, names).tied
    assert find_tied({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, names).tied
    assert not find_tied({"model_type": "gemma", "tie_word_embeddings": False}, names).tied
    assert not find_tied({"model_type": "llama"}, names).tied
    assert not find_tied({"model_type": ["gemma"]}, names).tied


def test_the_list_of_tied_types_is_what_transformers_says() -> None:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    both = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    wrong = {}
    for kind in sorted({name for names in both for name in names}):
        try:
            default = getattr(CONFIG_MAPPING[kind](), "tie_word_embeddings", None)
        except (TypeError, ValueError, AttributeError, OSError, ImportError, KeyError, StrictDataclassError):
            continue  # a config without defaults
        if (default is True) != (kind in TIED_BY_DEFAULT):
            wrong[kind] = default
    assert wrong == {}
