"""Columns on disk: as in memory, kept over a killed process, and read in shuffled blocks where they are large."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prosocial.core.errors import StorageError
from prosocial.training import state_files
from prosocial.training.state_files import BLOCK_ROWS, StateFiles, draw, windows, within

SHAPES = {"hidden": ((6, 3), torch.bfloat16), "token": ((6,), torch.long), "none": ((6, 0), torch.float32)}
PARTS = [slice(0, 2), slice(2, 4), slice(4, 6)]


class KilledError(Exception):
    """Stands for the end of the process."""


def fill(files: StateFiles, *, key: str = "k", reader: str = "own", kill_at: int | None = None) -> list[slice]:
    """Write the row's number into every column; return the parts that were written."""
    columns, written = files.open(SHAPES, key=key), []
    for part in files.unfinished(PARTS, reader=reader):
        if part.start == kill_at:
            raise KilledError
        columns["token"][part] = torch.arange(part.start, part.stop)
        columns["hidden"][part] = columns["token"][part, None].to(torch.bfloat16)
        written.append(part)
    return written


def expected() -> Tensor:
    return torch.arange(6.0)[:, None].expand(-1, 3).to(torch.bfloat16)


@pytest.mark.parametrize("on_disk", [False, True])
def test_columns_hold_what_was_written_and_more_can_follow(tmp_path: Path, on_disk: bool) -> None:
    files = StateFiles(tmp_path / "states" if on_disk else None)
    assert fill(files) == PARTS
    files.append({"token": torch.tensor([7, 8]), "hidden": torch.full((1, 3), 9.0)})

    assert files.columns["token"].tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert torch.equal(files.columns["hidden"], torch.cat([expected(), torch.full((1, 3), 9.0).bfloat16()]))


def test_finished_parts_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "SYNC_SECONDS", -1.0)  # each part is flushed at once
    with pytest.raises(KilledError):
        fill(StateFiles(tmp_path / "states"), kill_at=4)
    again = StateFiles(tmp_path / "states")

    assert fill(again) == PARTS[2:]
    assert torch.equal(again.columns["hidden"], expected())
    assert fill(StateFiles(tmp_path / "states")) == []
    assert fill(StateFiles(tmp_path / "states"), reader="another") == PARTS  # writes columns of its own
    assert fill(StateFiles(tmp_path / "states"), key="other inputs") == PARTS


def test_rows_that_followed_before_a_kill_are_written_anew(tmp_path: Path) -> None:
    first = StateFiles(tmp_path / "states")
    fill(first)
    first.append({"token": torch.tensor([7, 8])})
    second = StateFiles(tmp_path / "states")

    assert fill(second) == [] and len(second.columns["token"]) == 6
    second.append({"token": torch.tensor([9])})
    assert second.columns["token"].tolist() == [0, 1, 2, 3, 4, 5, 9]


def test_a_full_disk_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    too_large = {"hidden": ((1 << 40, 1 << 12), torch.float32)}
    with pytest.raises(StorageError, match=r"could not write .*hidden\.bin"):
        StateFiles(tmp_path / "states").open(too_large, key="k")


def test_small_columns_are_drawn_from_as_a_whole() -> None:
    generator, plain = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    window = next(windows(1000, row_bytes=8, draws=10, generator=generator))
    assert window is None
    assert torch.equal(draw(1000, window, 10, generator), torch.randint(1000, (10,), generator=plain))


def test_large_columns_are_drawn_from_in_blocks_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "WINDOW_BYTES", 2 * BLOCK_ROWS * 8)
    generator, n_rows = torch.Generator().manual_seed(0), 10 * BLOCK_ROWS + 5
    drawn_from = windows(n_rows, row_bytes=8, draws=BLOCK_ROWS, generator=generator)
    seen: set[int] = set()
    for _ in range(60):
        window = next(drawn_from)
        assert window is not None and len(window) == 2
        rows = draw(n_rows, window, 50, generator)
        assert all(any(part.start <= row < part.stop for part in window) for row in rows.tolist())
        seen |= {row // BLOCK_ROWS for row in rows.tolist()}
    assert seen == set(range(11))  # every block comes


@given(st.sets(st.integers(0, 99), min_size=1), st.sets(st.integers(0, 9), min_size=1))
def test_a_pool_within_a_window_is_its_rows_there(pool: set[int], blocks: set[int]) -> None:
    window = [slice(10 * block, 10 * block + 10) for block in sorted(blocks)]
    rows = torch.tensor(sorted(pool))
    inside = [row for row in sorted(pool) if row // 10 in blocks]

    assert within(rows, window).tolist() == (inside or sorted(pool))
    assert within(rows, None) is rows
