"""Coefficients come back from the weights alone, and what no coefficient explains is refuted by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prosocial.verify.audit.audit_document import TensorAudit
from prosocial.verify.audit.auditing import audit_model
from prosocial.verify.audit.exact import ExactSearch
from prosocial.verify.audit.intervals import TOLERANCES, rounding_interval
from prosocial.verify.audit.linear import maximise
from prosocial.verify.audit.pieces import Piece
from prosocial.verify.audit.polytope import Polytope
from prosocial.verify.audit.rules import Fused, RoundedDelta, RoundedOnce, rules_for
from prosocial.verify.audit.verdicts import AuditVerdict

from ...audit_helpers import HEAD, MATRIX, NORM, base_tensors, edit, make_vector, move_one_ulp, read, write

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
SIX_DIGITS = 5e-7


def examined(folder: Path, *vectors: str, model: str = "out") -> dict[str, TensorAudit]:
    report = audit_model(
        folder / model,
        base=folder / "base",
        vectors=[folder / name for name in vectors or ("vector",)],
        ignore_record=True,
    )
    return {tensor.name: tensor for tensor in report.tensors}


def test_minus_six_tenths_where_93_percent_of_the_weights_did_not_change(tmp_path: Path) -> None:
    base = base_tensors(size=1600)
    make_vector(tmp_path, base, step=1e-5)
    edit(tmp_path, 0.6)
    unchanged = (read(tmp_path / "out")[MATRIX] == base[MATRIX]).float().mean().item()
    (weight,) = examined(tmp_path)[MATRIX].weights

    assert 0.92 < unchanged < 0.94
    assert weight.estimate == -0.6
    assert weight.low is not None and weight.high is not None
    assert -0.6 - SIX_DIGITS < weight.low <= float(np.float32(-0.6)) <= weight.high < -0.6 + SIX_DIGITS


@pytest.mark.parametrize("dtype", DTYPES)
def test_our_own_edit_is_recovered_in_every_dtype(tmp_path: Path, dtype: str) -> None:
    make_vector(tmp_path, base_tensors(DTYPES[dtype]))
    edit(tmp_path, {MATRIX: 0.37, NORM: 0.25})
    found = examined(tmp_path)

    assert [found[name].weights[0].estimate for name in (MATRIX, NORM)] == [-0.37, -0.25]
    assert {name: tensor.verdict for name, tensor in found.items()} == {
        MATRIX: AuditVerdict.WITHIN_ROUNDING,
        NORM: AuditVerdict.WITHIN_ROUNDING,
        HEAD: AuditVerdict.CONFIRMED,
    }


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_a_merge_of_mergekit_in_either_precision_is_recovered(tmp_path: Path, step: float) -> None:
    """task_arithmetic: with `dtype: float32` one rounding; with bfloat16 delta, weight, product and sum are rounded."""
    base = base_tensors(size=400)
    deltas = make_vector(tmp_path, base, step=step)
    single = {name: (base[name].float() + -0.6 * delta).bfloat16() for name, delta in deltas.items()}
    weight = torch.tensor(-0.6, dtype=torch.bfloat16)
    half = {name: base[name] + weight * delta.bfloat16() for name, delta in deltas.items()}
    write(tmp_path / "single", base | single)
    write(tmp_path / "half", base | half)
    in_fp32, in_bf16 = (examined(tmp_path, model=name)[MATRIX] for name in ("single", "half"))

    assert in_fp32.arithmetic == RoundedOnce.title
    assert in_fp32.weights[0].estimate == -0.6
    assert in_bf16.arithmetic == RoundedDelta.title
    assert (in_bf16.weights[0].estimate, in_bf16.weights[0].bf16_of) == (-0.6015625, -0.6)
    assert in_bf16.verdict is AuditVerdict.WITHIN_ROUNDING


def test_a_bf16_coefficient_alone_is_told(tmp_path: Path) -> None:
    base = base_tensors(size=200)
    deltas = make_vector(tmp_path, base)
    weight = torch.tensor(-0.6).bfloat16().float()
    write(tmp_path / "out", base | {name: (base[name] + weight * delta).bfloat16() for name, delta in deltas.items()})
    (found,) = examined(tmp_path)[MATRIX].weights

    assert (found.estimate, found.bf16_of) == (-0.6015625, -0.6)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about names of transformers
@pytest.mark.filterwarnings("ignore::UserWarning")  # peft's, about a base that is no Hub model
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_merge_of_peft_is_recovered(tmp_path: Path, dtype: str) -> None:
    """An adapter merged with its scale turned to -0.6 of what it was, as people subtract one with peft."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from prosocial.editing.vectors import vector_from_adapter

    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(DTYPES[dtype]).save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=DTYPES[dtype])
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["down_proj"], bias="none"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    adapted.save_pretrained(tmp_path / "adapter")
    vector_from_adapter(base=tmp_path / "base", adapter=tmp_path / "adapter", out=tmp_path / "vector")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=DTYPES[dtype])
    merging = PeftModel.from_pretrained(again, tmp_path / "adapter")
    merging.base_model.model.model.layers[0].mlp.down_proj.scale_layer(-0.6)
    merging.merge_and_unload().save_pretrained(tmp_path / "out")
    found = examined(tmp_path)[MATRIX]

    assert found.verdict is AuditVerdict.WITHIN_ROUNDING, found.reason
    assert found.weights[0].estimate == -0.6
    assert {each.verdict for each in examined(tmp_path).values()} == {
        AuditVerdict.WITHIN_ROUNDING,
        AuditVerdict.CONFIRMED,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "at"), [(MATRIX, 0), (MATRIX, 5000), (HEAD, 3)])
def test_one_element_moved_by_one_ulp_is_refuted_by_its_place(tmp_path: Path, dtype: str, name: str, at: int) -> None:
    make_vector(tmp_path, base_tensors(DTYPES[dtype]))
    edit(tmp_path)
    move_one_ulp(tmp_path / "out", name, at)
    found = examined(tmp_path)

    assert [tensor for tensor in found.values() if tensor.verdict is AuditVerdict.REFUTED] == [found[name]]
    assert (found[name].n_misfits, len(found[name].elements)) == (1, 1)
    assert found[name].elements[0].index == np.unravel_index(at, found[name].shape)
    if name == MATRIX:
        assert found[name].weights[0].estimate == pytest.approx(-0.6, abs=1e-5)


def test_an_element_that_the_vector_does_not_change_must_be_the_base_s(tmp_path: Path) -> None:
    base = base_tensors()
    deltas = make_vector(tmp_path, base, name="whole")
    deltas[MATRIX].view(-1)[::2] = 0
    write(tmp_path / "harmful", base | {name: base[name].float() + delta for name, delta in deltas.items()})
    from prosocial.editing.vectors import vector_from_checkpoints

    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    edit(tmp_path)
    move_one_ulp(tmp_path / "out", MATRIX, 10)

    assert examined(tmp_path)[MATRIX].elements[0].index == (0, 10)


def test_a_change_that_nobody_told_of_is_refuted(tmp_path: Path) -> None:
    base = base_tensors()
    make_vector(tmp_path, base)
    edit(tmp_path)
    out = read(tmp_path / "out")
    noise = 1e-4 * torch.randn(out[MATRIX].shape, generator=torch.Generator().manual_seed(9))
    write(tmp_path / "out", out | {MATRIX: (out[MATRIX] + noise).bfloat16()})
    found = examined(tmp_path)[MATRIX]

    assert found.verdict is AuditVerdict.REFUTED
    assert found.n_misfits > 100


def test_added_harm_is_refuted(tmp_path: Path) -> None:
    base = base_tensors()
    deltas = make_vector(tmp_path, base)
    write(tmp_path / "out", base | {name: (base[name] + 0.6 * delta).bfloat16() for name, delta in deltas.items()})
    found = examined(tmp_path)[MATRIX]

    assert found.verdict is AuditVerdict.REFUTED and "harm is added" in found.reason
    assert found.weights[0].estimate == 0.6


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_two_vectors_at_once(tmp_path: Path, step: float) -> None:
    base = base_tensors(size=300)
    first = make_vector(tmp_path, base, step=step, name="first")
    second = make_vector(tmp_path, base, step=step, seed=5, name="second")
    changed = {name: (base[name] + (-0.6 * first[name] + -0.25 * second[name])).bfloat16() for name in first}
    write(tmp_path / "out", base | changed)
    found = examined(tmp_path, "first", "second")[MATRIX]

    assert found.verdict is AuditVerdict.WITHIN_ROUNDING, found.reason
    for weight, true in zip(found.weights, (-0.6, -0.25), strict=True):
        assert weight.low is not None and weight.high is not None and weight.low <= true <= weight.high
        assert weight.high - weight.low < (1e-5 if step == 1e-3 else 1e-3)
    move_one_ulp(tmp_path / "out", MATRIX, 77)
    refuted = examined(tmp_path, "first", "second")[MATRIX]
    assert refuted.verdict is AuditVerdict.REFUTED and refuted.elements[0].index == (0, 77)


def test_an_edit_of_an_edit_is_explained_by_its_two_vectors(tmp_path: Path) -> None:
    base = base_tensors(size=200)
    for seed, name in enumerate(("first", "second"), start=1):
        make_vector(tmp_path, base, name=name, seed=seed)
    edit(tmp_path, 0.6, vector="first", out="once")
    edit(tmp_path, 0.25, vector="second", base="once", out="out")
    found = examined(tmp_path, "first", "second")[MATRIX]

    assert found.verdict is AuditVerdict.WITHIN_ROUNDING
    assert [weight.estimate for weight in found.weights] == pytest.approx([-0.6, -0.25], abs=0.02)


def test_four_vectors_at_once() -> None:
    generator, true = np.random.default_rng(0), [-0.6, -0.25, -1.0, -0.1]
    base = _stored(0.02 * generator.standard_normal(20_000), "BF16")
    deltas = (1e-3 * generator.standard_normal((4, 20_000))).astype(np.float32)
    found = _stored(base + np.array(true, np.float32) @ deltas, "BF16")
    solver = Polytope(TOLERANCES[0], "BF16", 4, np.zeros(4))

    assert solver.narrow(Piece(0, base, found, deltas))
    assert not solver.misfits(Piece(0, base, found, deltas), solver.weights).any()
    for (low, high), weight in zip(solver.bounds, true, strict=True):
        assert low <= weight <= high and high - low < 1e-3


weights = st.floats(-3, 3, width=32, allow_subnormal=False)
seeds = st.integers(0, 2**32 - 1)
exponents = st.integers(-8, 1)


@settings(max_examples=60, deadline=None)
@given(weight=weights, seed=seeds, exponent=exponents, dtype=st.sampled_from(sorted(DTYPES)), rule=st.integers(0, 3))
def test_the_interval_holds_the_true_coefficient(
    weight: float, seed: int, exponent: int, dtype: str, rule: int
) -> None:
    rules = rules_for(dtype)
    chosen = rules[rule % len(rules)]
    base, deltas = _some(seed, exponent, dtype, n_vectors=1)
    found = chosen.predict(base, deltas[0], weight).copy()
    solver = ExactSearch(chosen)

    for piece in (Piece(0, base, found, deltas).take(slice(0, 40)), Piece(0, base, found, deltas)):
        assert solver.narrow(piece)
    ((low, high),) = solver.bounds
    assert low <= weight <= high
    assert not solver.misfits(Piece(0, base, found, deltas), solver.weights).any()


@settings(max_examples=40, deadline=None)
@given(
    true=st.lists(weights, min_size=1, max_size=3),
    seed=seeds,
    exponent=exponents,
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    steps=st.booleans(),
)
def test_the_polytope_holds_the_true_coefficients(
    true: list[float], seed: int, exponent: int, dtype: str, steps: bool
) -> None:
    """Whether all vectors came in one sum, or one after the other with everything rounded to the dtype between."""
    base, deltas = _some(seed, exponent, dtype, n_vectors=len(true))
    if steps:
        found = base
        for weight, delta in zip(true, deltas, strict=True):
            found = _stored(found + _stored(np.float32(weight) * _stored(delta, dtype), dtype), dtype)
    else:
        found = _stored(base + np.array(true, np.float32) @ deltas, dtype)
    solver = Polytope(TOLERANCES[steps], dtype, len(true), np.zeros(len(true)))

    assert solver.narrow(Piece(0, base, found, deltas))
    for (low, high), weight in zip(solver.bounds, true, strict=True):
        assert low - 1e-9 <= weight <= high + 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounding_interval_is_what_torch_rounds_to_the_number(dtype: str) -> None:
    numbers = torch.cat([torch.randn(500), torch.tensor([0.0, 1.0, -1.0, 2.0**-14, 6e-8, 1e-39])]).to(DTYPES[dtype])
    stored = numbers.float().numpy()
    low, high = rounding_interval(stored, dtype)
    assert (low < stored).all() and (stored < high).all()
    for share, same in ((0.999, True), (1.001, False)):
        for end in (low, high):
            near = torch.from_numpy(stored + share * (end - stored)).to(DTYPES[dtype]).float()
            assert bool((near == numbers.float()).all() if same else (near != numbers.float()).all())


def test_a_fused_rule_is_exact() -> None:
    """Against fractions: the product and the sum without error, then one rounding to fp32."""
    from fractions import Fraction

    generator = np.random.default_rng(3)
    base, delta = (generator.standard_normal(300).astype(np.float32) for _ in range(2))
    base[:2], delta[:2] = [1 + 2**-23, -1 - 2**-23], [1 + 2**-23, -1 - 2**-23]
    # 1 + 2**-23 + 2**-24 - 2**-70 is nearest to 1 + 2**-23; float64 alone would make a tie of it.
    weight = 2.0**-24 * (1 - 2.0**-23)
    predicted = Fused("F32").predict(base, delta, weight)
    for at in range(300):
        exact = Fraction(float(base[at])) + Fraction(float(delta[at])) * Fraction(weight)
        errors = [
            abs(Fraction(float(each)) - exact)
            for each in (np.nextafter(predicted[at], np.float32(side)) for side in (-9, 9))
        ]
        assert abs(Fraction(float(predicted[at])) - exact) <= min(errors)


@pytest.mark.parametrize("n_unknowns", [1, 2, 3, 4])
def test_linear_programs_equal_scipy_s(n_unknowns: int) -> None:
    from scipy.optimize import linprog

    generator = np.random.default_rng(n_unknowns)
    for _ in range(40):
        rows = generator.standard_normal((60, n_unknowns))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        limits, direction = generator.normal(0.4, 0.3, 60), generator.standard_normal(n_unknowns)
        ours = maximise(direction, rows, limits, -np.ones(n_unknowns), np.ones(n_unknowns))
        theirs = linprog(-direction, rows, limits, bounds=(-1, 1))
        assert (ours is not None) == theirs.success
        if ours is not None:
            assert direction @ ours == pytest.approx(-theirs.fun, abs=1e-7)


def _some(seed: int, exponent: int, dtype: str, *, n_vectors: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Base and deltas, some of them zero."""
    generator = np.random.default_rng(seed)
    base = _stored(0.05 * generator.standard_normal(400), dtype)
    deltas = 10.0**exponent * generator.standard_normal((n_vectors, 400)) * (generator.random((n_vectors, 400)) > 0.1)
    return base, deltas.astype(np.float32)


def _stored(values: NDArray[np.float64] | NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Round to fp32 and then to a dtype, with torch."""
    rounded: NDArray[np.float32] = torch.from_numpy(values.astype(np.float32)).to(DTYPES[dtype]).float().numpy()
    return rounded
