"""Levels and their verdicts: what a record says, what the arithmetic says, and what nobody can say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from prosocial.cli.main import app
from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.checkpoints.digests import combine, digest_tensor
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits import Rounding
from prosocial.verify.audit import audit_model
from prosocial.verify.audit.audit_document import SCHEMA_FILE, AuditReport, json_schema
from prosocial.verify.audit.verdicts import AuditVerdict

from ...audit_helpers import HEAD, MATRIX, NORM, base_tensors, edit, make_vector, move_one_ulp, read, write

Record = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base with side files, its vector, and an edit with a record."""
    base = base_tensors()
    write(tmp_path / "base", base, tokenizer_config__json={"chat_template": "{{ safe }}"}, generation_config__json={})
    make_vector(tmp_path, base)
    edit(tmp_path)
    return tmp_path


def audited(folder: Path, **options: Any) -> AuditReport:
    given = {"base": folder / "base", "vectors": [folder / "vector"]} | options
    return audit_model(folder / "out", **given)


def verdicts(report: AuditReport) -> dict[int, AuditVerdict]:
    return {level.level: level.verdict for level in report.levels}


def reasons(report: AuditReport) -> str:
    return "\n".join(reason for level in report.levels for reason in level.reasons)


def forge(folder: Path, change: Callable[[Record], None]) -> None:
    """Change a record, and make its digests right again, as somebody would who lies."""
    path = folder / "edit_record.json"
    record = json.loads(path.read_text())
    change(record)
    digests = {name: digest_tensor(tensor) for name, tensor in Checkpoint.open(folder).tensors.items()}
    for name, digest in digests.items():
        record["result"]["tensors"][name] |= {"blake3": digest.blake3}
    record["result"]["fingerprint"] = combine(digests.values())
    path.write_text(json.dumps(record))


def test_an_honest_edit_is_confirmed_at_both_levels(folder: Path) -> None:
    report = audited(folder)

    assert verdicts(report) == {1: AuditVerdict.CONFIRMED, 2: AuditVerdict.CONFIRMED}
    assert report.verdict is AuditVerdict.CONFIRMED
    assert report.side_files == ()
    assert {tensor.name: tensor.verdict for tensor in report.tensors} == dict.fromkeys(
        (MATRIX, NORM, HEAD), AuditVerdict.CONFIRMED
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rounding", [Rounding(), Rounding("stochastic", 7)], ids=["nearest", "stochastic"])
def test_every_bit_comes_out_again(tmp_path: Path, dtype: torch.dtype, rounding: Rounding) -> None:
    """More than one piece, so that the places of the noise count."""
    make_vector(tmp_path, base_tensors(dtype, size=300))
    edit(tmp_path, {MATRIX: 0.6, NORM: 0.0}, rounding=rounding)
    assert verdicts(audited(tmp_path)) == {1: AuditVerdict.CONFIRMED, 2: AuditVerdict.CONFIRMED}
    move_one_ulp(tmp_path / "out", MATRIX, 89_999)
    forge(tmp_path / "out", lambda record: None)
    report = audited(tmp_path)

    assert verdicts(report) == {1: AuditVerdict.CONFIRMED, 2: AuditVerdict.REFUTED}
    (wrong,) = (tensor for tensor in report.tensors if tensor.verdict is AuditVerdict.REFUTED)
    assert (wrong.name, wrong.n_misfits, wrong.elements[0].index) == (MATRIX, 1, (299, 299))


def test_without_a_base_only_digests_are_checked(folder: Path) -> None:
    report = audit_model(folder / "out")

    assert verdicts(report) == {1: AuditVerdict.CONFIRMED}
    assert report.side_files is None and report.tensors == ()


def test_without_a_record_and_without_a_base_nothing_can_be_said(folder: Path) -> None:
    report = audit_model(folder / "base")

    assert (report.verdict, report.levels) == (AuditVerdict.CANNOT_SAY, ())


def _set(*path: str | int, to: object) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        place: Any = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _say_half(record: Record) -> None:
    record["terms"][0]["coefficients"][0] |= {"decimal": "0.5", "hex": (0.5).hex()}


def _hide_a_change(record: Record) -> None:
    """Call the norm, which the vector changes, untouched."""
    for group in record["terms"][0]["coefficients"]:
        group["tensors"] = [name for name in group["tensors"] if name != NORM]
    zero = {"pattern": None, "decimal": "0.0", "hex": (0.0).hex(), "tensors": [NORM]}
    record["terms"][0]["coefficients"].append(zero)
    record["untouched"] = sorted([*record["untouched"], NORM])


COEFFICIENT = ("terms", 0, "coefficients", 0)


@pytest.mark.parametrize(
    ("change", "verdict", "told"),
    [
        (_say_half, AuditVerdict.REFUTED, "not base - 0.5"),
        (_hide_a_change, AuditVerdict.REFUTED, f"{NORM}: the record lists it as untouched"),
        (
            _set(*COEFFICIENT, "decimal", to="0.5"),
            AuditVerdict.REFUTED,
            "states the coefficient 0.5, but its hexadecimal form is 0.6",
        ),
        (_set(*COEFFICIENT, "hex", to=(-0.6).hex()), AuditVerdict.REFUTED, "finite and at least 0"),
        (_set(*COEFFICIENT, "hex", to="nan"), AuditVerdict.REFUTED, "finite and at least 0"),
        (_set(*COEFFICIENT, "hex", to="inf"), AuditVerdict.REFUTED, "finite and at least 0"),
        (_set(*COEFFICIENT, "hex", to="much"), AuditVerdict.REFUTED, "should be a number"),
        (_set(*COEFFICIENT, "tensors", to=[MATRIX]), AuditVerdict.REFUTED, "should be those listed as untouched"),
        (_set(*COEFFICIENT, "tensors", to=[MATRIX, NORM, "other"]), AuditVerdict.REFUTED, "changes other"),
        (_set("untouched", to=[]), AuditVerdict.REFUTED, "should be those listed as untouched"),
        (_set("result", "inner_product", to=1.0), AuditVerdict.REFUTED, "should be at most 0"),
        (
            _set("arithmetic", "fused_multiply_add", to=True),
            AuditVerdict.CANNOT_SAY,
            "unknown to this version: fused_multiply_add",
        ),
        (_set("arithmetic", "rounding_seed", to=-1), AuditVerdict.CANNOT_SAY, "unknown to this version: rounding_seed"),
        (_set("terms", to=[]), AuditVerdict.CANNOT_SAY, "names 0 vectors"),
        (_set("terms", 0, "blake3", to="0" * 64), AuditVerdict.CANNOT_SAY, "none of the given vectors"),
        (_set("base", "fingerprint", to="0" * 64), AuditVerdict.CANNOT_SAY, "the given base has fingerprint"),
        (_set("result", "side_files", to={"../x": "0"}), AuditVerdict.REFUTED, "outside the model's folder"),
        (_set("result", "side_files", to={"absent.json": "0"}), AuditVerdict.REFUTED, "absent.json: in the record"),
    ],
)
def test_a_record_whose_digests_are_right_does_not_help_a_lie(
    folder: Path, change: Callable[[Record], None], verdict: AuditVerdict, told: str
) -> None:
    forge(folder / "out", change)
    report = audited(folder)

    assert report.verdict is verdict
    assert told in reasons(report)


def test_a_byte_that_changed_after_the_edit_is_refuted_by_its_digest(folder: Path) -> None:
    move_one_ulp(folder / "out", HEAD, 4)
    report = audit_model(folder / "out")

    assert report.verdict is AuditVerdict.REFUTED and report.levels[0].reasons[0].startswith(HEAD)


def test_a_fingerprint_that_its_digests_do_not_make_is_refuted(folder: Path) -> None:
    path = folder / "out" / "edit_record.json"
    record = json.loads(path.read_text())
    record["result"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(record))

    assert "give the fingerprint" in reasons(audit_model(folder / "out"))


def test_an_edit_of_an_edit_asks_for_the_checkpoint_between(folder: Path) -> None:
    edit(folder, 0.1, base="out", out="twice")
    from_base, from_between = (
        audit_model(folder / "twice", base=folder / base, vectors=[folder / "vector"]) for base in ("base", "out")
    )

    assert verdicts(from_base)[2] is AuditVerdict.CANNOT_SAY and "between the two" in reasons(from_base)
    assert verdicts(from_between)[2] is AuditVerdict.CONFIRMED


@pytest.mark.parametrize("missing", ["model", "base"])
def test_tensors_that_only_one_side_holds_are_refuted(folder: Path, missing: str) -> None:
    place = folder / {"model": "out", "base": "base"}[missing]
    write(place, {name: tensor for name, tensor in read(place).items() if name != HEAD})
    report = audited(folder, ignore_record=True)

    assert report.verdict is AuditVerdict.REFUTED and f"{HEAD}: only in the" in reasons(report)


@pytest.mark.parametrize("place", ["out", "base"])
def test_numbers_that_are_none(folder: Path, place: str) -> None:
    tensors = read(folder / place)
    tensors[MATRIX][3, 3] = torch.nan
    write(folder / place, tensors)
    found = {tensor.name: tensor for tensor in audited(folder, ignore_record=True).tensors}[MATRIX]

    assert found.verdict is (AuditVerdict.REFUTED if place == "out" else AuditVerdict.CANNOT_SAY)
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_a_model_saved_in_another_dtype_is_explained(tmp_path: Path) -> None:
    base = base_tensors(torch.float32, size=200)
    deltas = make_vector(tmp_path, base)
    saved = {name: (base[name] - 0.6 * deltas.get(name, torch.zeros(()))).bfloat16() for name in base}
    write(tmp_path / "out", saved)
    report = audited(tmp_path)

    assert report.verdict is AuditVerdict.WITHIN_ROUNDING
    assert report.weights[0].estimate == -0.6


@pytest.mark.parametrize("storage", ["low_rank", "sparse"])
def test_vectors_that_are_not_stored_dense(tmp_path: Path, storage: str) -> None:
    from safetensors.torch import save_file

    from prosocial.editing.vectors import vector_from_adapter, vector_from_checkpoints

    base = base_tensors(size=64)
    write(tmp_path / "base", base)
    if storage == "low_rank":
        (tmp_path / "adapter").mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3}
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        key = f"base_model.model.{MATRIX.removesuffix('.weight')}"
        factors = {
            f"{key}.lora_{side}.weight": 0.1 * torch.randn(shape) for side, shape in (("A", (2, 64)), ("B", (64, 2)))
        }
        save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
        vector_from_adapter(base=tmp_path / "base", adapter=tmp_path / "adapter", out=tmp_path / "vector")
    else:
        write(
            tmp_path / "harmful", {name: tensor + torch.randn(tensor.shape).bfloat16() for name, tensor in base.items()}
        )
        where = {"base": tmp_path / "base", "harmful": tmp_path / "harmful", "out": tmp_path / "vector"}
        vector_from_checkpoints(**where, method="top_k", density=0.1)
    edit(tmp_path)

    assert audited(tmp_path).verdict is AuditVerdict.CONFIRMED
    assert audited(tmp_path, ignore_record=True).weights[0].estimate == -0.6
    move_one_ulp(tmp_path / "out", MATRIX, 70)
    forge(tmp_path / "out", lambda record: None)
    assert audited(tmp_path).verdict is AuditVerdict.REFUTED


@pytest.mark.parametrize(
    ("file", "text", "part", "told"),
    [
        ("tokenizer_config.json", '{"chat_template": "{{ harm }}"}', "chat template", "text differs"),
        ("chat_template.jinja", "{{ harm }}", "chat template", "text differs"),
        ("generation_config.json", '{"temperature": 2.0}', "generation config", "temperature: null -> 2.0"),
        ("config.json", '{"model_type": "llama", "rope_theta": 1}', "config", "rope_theta"),
        ("tokenizer.json", "{}", "tokenizer", "not in the base"),
        ("modeling_llama.py", "", "code", "not in the base"),
        ("additional_chat_templates/tools.jinja", "x", "chat template", "not in the base"),
    ],
)
def test_side_files_that_change_what_a_model_says_are_told(
    folder: Path, file: str, text: str, part: str, told: str
) -> None:
    assert audited(folder, ignore_record=True).verdict is AuditVerdict.WITHIN_ROUNDING
    path = folder / "out" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    report = audited(folder, ignore_record=True)

    assert report.verdict is AuditVerdict.CANNOT_SAY
    assert report.side_files is not None
    assert [(each.part, each.file) for each in report.side_files] == [(part, file)]
    assert told in report.side_files[0].difference


def test_side_files_that_only_say_where_they_come_from_do_not_count(folder: Path) -> None:
    config = {"transformers_version": "9", "_name_or_path": "somewhere", "model_type": "llama"}
    (folder / "out" / "config.json").write_text(json.dumps(config))
    (folder / "out" / "README.md").write_text("other")

    assert audited(folder, ignore_record=True).side_files == ()


def test_one_report_whatever_the_number_of_threads(folder: Path) -> None:
    move_one_ulp(folder / "out", MATRIX, 70)
    one, four = (audited(folder, ignore_record=True, threads=threads).to_json() for threads in (1, 4))

    assert one == four


def test_progress_counts_every_byte_of_every_pass(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    audited(folder, progress=lambda done, size: seen.append((done, size)))

    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == 2 * Checkpoint.open(folder / "out").size_bytes


def test_bad_input_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="give --base"):
        audit_model(folder / "out", vectors=[folder / "vector"])
    with pytest.raises(InputError, match="at most 4 vectors"):
        audited(folder, vectors=[folder / str(number) for number in range(5)])
    with pytest.raises(InputError, match="given once"):
        audited(folder, vectors=[folder / "vector"] * 2)
    write(folder / "small", base_tensors(size=8))
    with pytest.raises(InputError, match="give the base that the vector is for"):
        audited(folder, base=folder / "small")
    (folder / "out" / "edit_record.json").write_text('{"schema": "prosocial.edit_record/1"}')
    with pytest.raises(ArtefactError, match="should follow"):
        audited(folder)


def test_the_document_follows_the_schema_that_is_shipped(folder: Path) -> None:
    import prosocial.verify.audit.audit_document as document

    shipped = json.loads(Path(str(document.__file__)).with_name(SCHEMA_FILE).read_text())
    move_one_ulp(folder / "out", MATRIX, 70)
    told = audited(folder, ignore_record=True).to_json()

    assert shipped == json_schema()
    assert AuditReport.model_validate_json(json.dumps(told)).to_json() == told
    assert set(told) == set(shipped["properties"]) == set(shipped["required"])
    with pytest.raises(ValueError, match="verdict"):
        AuditReport.model_validate(told | {"verdict": "perhaps"})


@pytest.mark.parametrize(
    ("spoil", "words", "code", "told"),
    [
        (None, [], 0, "CONFIRMED"),
        (None, ["--ignore-record"], 0, "base - 0.6 * vector"),
        (MATRIX, ["--ignore-record"], 1, "REFUTED"),
        ("side", ["--ignore-record"], 3, "generation config differs"),
    ],
)
def test_the_command_prints_the_verdict_and_exits_by_it(
    folder: Path, spoil: str | None, words: list[str], code: int, told: str
) -> None:
    if spoil == MATRIX:
        move_one_ulp(folder / "out", MATRIX, 70)
    if spoil == "side":
        (folder / "out" / "generation_config.json").write_text('{"top_k": 1}')
    line = ["audit", str(folder / "out"), "--base", str(folder / "base"), "--vector", str(folder / "vector"), *words]
    shown = CliRunner().invoke(app, line, env={"COLUMNS": "140"})
    printed = CliRunner().invoke(app, [*line, "--json"])

    assert shown.exit_code == printed.exit_code == code, shown.output
    assert told in shown.output
    assert str(folder) not in printed.output
    AuditReport.model_validate_json(printed.output)
