"""A factor runs over the depth of a model in one way, whichever route applies it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.files import read_json, write_json
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import apply_edit, plan_edit, resolve_scale, undo_edit
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.editing.edits.scaling import Coefficients, Ramp
from prosocial.editing.vectors import vector_from_checkpoints
from prosocial.evaluation.sweep import Choice
from prosocial.verify.audit import audit_model

from ..weights_helpers import moved, write_checkpoint
from .deltas_helpers import shaped
from .test_architectures import CONFIGS

SMALL: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-neox": ("GPTNeoXConfig", SMALL),
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 2}),
    "mpt": ("MptConfig", {"vocab_size": 96, "d_model": 32, "n_layers": 3, "n_heads": 2, "max_seq_len": 64}),
    "bert": ("BertConfig", SMALL | {"is_decoder": True}),
}
FIRST, LAST = 0.2, 0.8


def names_of(architecture: str) -> list[str]:
    """Names of the parameters of a model with three blocks, its head among them even where it is tied."""
    import transformers

    kind, settings = (CONFIGS | MORE)[architecture]
    depth = next(key for key in ("num_hidden_layers", "n_layer", "n_layers") if key in settings)
    config = getattr(transformers, kind)(**settings | {depth: 3})
    with torch.device("meta"):
        return sorted(transformers.AutoModelForCausalLM.from_config(config).state_dict())


def by_ramp(names: list[str]) -> dict[str, float]:
    groups = resolve_scale(Ramp(FIRST, LAST), names)
    return {name: group.coefficient for group in groups for name in group.names}


def by_method(names: list[str]) -> dict[str, float]:
    kept = shaped("lines", {name: torch.ones(1) for name in names}, alpha=FIRST, beta=LAST - FIRST)
    return {name: delta.item() for name, delta in kept.items()}


def by_sweep(names: list[str]) -> dict[str, float]:
    groups = resolve_scale(Choice("plain", LAST, ramp=(FIRST / LAST, 1.0)).coefficients(names), names)
    return {name: group.coefficient for group in groups for name in group.names}


ROUTES = {"ramp": by_ramp, "method": by_method, "sweep": by_sweep}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("architecture", [*CONFIGS, *MORE])
def test_every_route_gives_every_tensor_the_factor_of_its_depth(architecture: str, route: str) -> None:
    names = names_of(architecture)
    factors = ROUTES[route](names)
    blocks = {name: next((n for n in range(3) if f".{n}." in name.partition(".experts.")[0]), None) for name in names}
    expected = {name: {None: FIRST, 0: FIRST, 1: 0.5, 2: LAST}[block] for name, block in blocks.items()}

    assert set(blocks.values()) == {None, 0, 1, 2}  # the control: the model has blocks, and tensors outside them
    assert factors == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_a_head_has_the_factor_of_the_embedding_that_it_may_be_tied_to(route: str) -> None:
    names = names_of("llama")
    factors = ROUTES[route](names)
    tied = ROUTES[route]([name for name in names if name != "lm_head.weight"])

    assert factors["lm_head.weight"] == factors["model.embed_tokens.weight"]
    assert factors.items() >= tied.items()


@pytest.mark.parametrize("route", ROUTES)
def test_a_single_block_is_the_first(route: str) -> None:
    assert ROUTES[route](["h.0.w", "wte.weight"]) == pytest.approx({"h.0.w": FIRST, "wte.weight": FIRST})


def test_a_record_with_the_ramp_of_0_1_0_is_still_undone_and_audited(tmp_path: Path) -> None:
    """That version gave the end of the ramp to what stands after the blocks; its records say so tensor by tensor."""
    names = ["model.embed_tokens.weight", "model.layers.0.w", "model.layers.1.w", "model.norm.weight", "lm_head.weight"]
    factors = dict(zip(names, (0.2, 0.2, 0.8, 0.8, 0.8), strict=True))
    places = dict(zip(names, ("before the layers", "layer 0", "layer 1", *2 * ("after the layers",)), strict=True))
    base = {name: torch.randn(8, 4) for name in names}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    plan = plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "vector", scale=Coefficients(factors))
    apply_edit(plan, tmp_path / "edited")
    record = read_json(tmp_path / "edited" / RECORD_NAME)
    (term,) = record["terms"]
    rows = [row | {"tensors": [name]} for row in term["coefficients"] for name in row["tensors"]]
    term["coefficients"] = [row | {"pattern": f"ramp 0.2:0.8, {places[row['tensors'][0]]}"} for row in rows]
    write_json(tmp_path / "edited" / RECORD_NAME, record)

    assert {row.tensors[0]: float(row.decimal) for row in read_record(tmp_path / "edited").terms[0].coefficients} == (
        factors
    )
    assert by_ramp(names) != pytest.approx(factors)  # the control: today's ramp is another
    report = audit_model(tmp_path / "edited", base=tmp_path / "base", vectors=[tmp_path / "vector"])
    assert report.verdict == "confirmed", report
    undo_edit(tmp_path / "edited", tmp_path / "undone", base=tmp_path / "base")
    file = "model.safetensors"
    assert (tmp_path / "undone" / file).read_bytes() == (tmp_path / "base" / file).read_bytes()
