"""What writes a file, killed before each of its writes: the file is absent, as before, or whole, and nothing is left.

The commands themselves are killed in the long tier, by cli/test_killed_commands.py.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prosocial.core.errors import InputError
from prosocial.core.files import read_json, read_jsonl, write_json, write_jsonl
from prosocial.core.signing import SigningKey
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import apply_edit, plan_edit, undo_edit
from prosocial.editing.vectors import vector_from_checkpoints
from prosocial.evaluation.report.junit import TestCase, write_junit
from prosocial.evaluation.sampling.store import reply_folder
from prosocial.evaluation.sweep.journal import Journal
from prosocial.export.hub.card import write_card
from prosocial.recipes.labelling.rows import label_rows
from prosocial.steering.audit_log.log import AuditLog, check_log
from prosocial.steering.audit_log.witness import Witness, append_witness, read_witnesses
from prosocial.steering.authorisation.trust import TrustFile, revoke_in
from prosocial.verify.audit.audit_page import write_audit
from prosocial.verify.signing import check_chain, sign_folder

from .signing_helpers import make_edited, make_key
from .weights_helpers import moved, some_tensors, write_checkpoint
from .write_watch import killed_at_each_write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
SERIALS = ("1" * 32, "2" * 32)
ROWS = [{"n": number, "text": "word " * 2000} for number in range(3)]


Case = tuple[Callable[[], object], Callable[[], object]]  # the work, and what raises unless its output is sound


def json_file(folder: Path) -> Case:
    write_json(folder / "a.json", {"n": 0})
    return lambda: write_json(folder / "a.json", {"n": 1}), lambda: read_json(folder / "a.json")["n"]


def rows_file(folder: Path) -> Case:
    def check() -> None:
        assert not (folder / "a.jsonl").exists() or read_jsonl(folder / "a.jsonl") == ROWS

    return lambda: write_jsonl(folder / "a.jsonl", ROWS), check


def labels(folder: Path) -> Case:
    def check() -> None:
        assert not (folder / "a.jsonl").exists() or read_jsonl(folder / "a.jsonl") == ROWS

    def work() -> None:
        if not (folder / "a.jsonl").exists():
            label_rows(ROWS, lambda row: row, out=folder / "a.jsonl", made_with={})

    return work, check


def audit_page(folder: Path) -> Case:
    make_edited(folder, make_key(folder, "own"))
    document = read_json(folder / "audit.json")

    def check() -> None:
        if (folder / "report" / "audit.json").exists():
            assert read_json(folder / "report" / "audit.json") == document
            assert (folder / "report" / "audit.html").read_text().rstrip().endswith("</html>")

    return lambda: write_audit(folder / "report", document), check


def junit(folder: Path) -> Case:
    def check() -> None:
        assert not (folder / "a.xml").exists() or (folder / "a.xml").read_text().rstrip().endswith("</testsuites>")

    return lambda: write_junit(folder / "a.xml", "suite", [TestCase("one", "pass", "")]), check


def card(folder: Path) -> Case:
    def check() -> None:
        assert not (folder / "README.md").exists() or (folder / "README.md").read_text() == "a card"

    return lambda: write_card(folder, "a card"), check


def signature(folder: Path) -> Case:
    make_edited(folder, make_key(folder, "own"))
    key = SigningKey.read(folder / "own.pem")

    def check() -> None:
        if (folder / "out" / "model.sig").exists():
            assert check_chain(folder / "out", keys=[key.public], allow_missing=["audit"]).verdict == "pass"

    reports = {"audit": folder / "audit.json"}
    return lambda: sign_folder(folder / "out", key, reports=reports, again=True), check


def revocations(folder: Path) -> Case:
    path = folder / "trust.json"
    TrustFile.model_validate({"schema": "prosocial.trust/1", "keys": {}}).revoke(serials=SERIALS[:1]).write(path)

    def check() -> None:
        assert SERIALS[0] in TrustFile.read(path).revoked_serials

    return lambda: revoke_in(path, serials=SERIALS[1:]), check


def log(folder: Path) -> Case:
    key = SigningKey.read(make_key(folder, "own"))
    audit_log = AuditLog(folder / "log", folder / "log.head", key)
    audit_log.append({"kind": "first"})

    def work() -> None:
        audit_log.require_writable()
        audit_log.append({"kind": "next"})

    def check() -> None:
        report = check_log(folder / "log", folder / "log.head", [key.public])
        assert report.problems == () and (report.verdict == "pass" or report.interrupted)

    return work, check


def witness(folder: Path) -> Case:
    seen = Witness(lines=1, last="0" * 64, time="2026-01-01T00:00:00Z")
    append_witness(folder / "witness", seen)
    return lambda: append_witness(folder / "witness", seen), lambda: read_witnesses([folder / "witness"])


def edit_with_patch(folder: Path) -> Case:
    base = some_tensors(dtype=torch.float32)
    write_checkpoint(folder / "base", base)
    write_checkpoint(folder / "harmful", base | moved(base))
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    plan = plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=0.5)

    def work() -> None:
        if not (folder / "out").exists():
            apply_edit(plan, folder / "out", patch=folder / "out.patch", threads=1)

    def check() -> None:
        if (folder / "out").exists():
            undo_edit(folder / "out", folder / "restored", patch=folder / "out.patch")
            shutil.rmtree(folder / "restored")

    return work, check


def sweep_journal(folder: Path) -> Case:
    return lambda: Journal(folder / "sweep", settings={"a": 1}, n_objectives=2, seed=0).ask(), lambda: None


FILES = (json_file, rows_file, labels, audit_page, junit, card)
CASES = (*FILES, signature, revocations, log, witness, edit_with_patch, sweep_journal)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path, case: Callable[[Path], Case]) -> None:
    work, check = case(tmp_path)
    n_kills = -1
    for _ in killed_at_each_write(work, tmp_path):
        check()
        n_kills += 1
    assert n_kills > 0
    work()  # another one deletes what killed ones have left
    check()
    left = [path.name for path in tmp_path.rglob(".*") if path.suffix in (".partial", ".tmp")]
    assert left == [] or case in (json_file, rows_file), "whoever writes them deletes it, see `delete_asides`"


def test_a_comparison_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        reply_folder(tmp_path / "out"),
        pytest.raises(InputError, match="another process is using it"),
        reply_folder(tmp_path / "out"),
    ):
        pass
    assert list((tmp_path / "out").iterdir()) == []
