"""`prosocial convert`: what it prints, and what it says when its library is missing."""

import json
import sys
from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf")

from prosocial.cli.main import main  # noqa: E402
from prosocial.editing import Checkpoint  # noqa: E402

from ..editing.gguf.writing import write_gguf  # noqa: E402

Capture = pytest.CaptureFixture[str]


def test_it_says_that_quantised_weights_were_dequantised_and_to_what(tmp_path: Path, capsys: Capture) -> None:
    write_gguf(tmp_path / "model.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    out = tmp_path / "out"

    assert main(["convert", str(tmp_path / "model.gguf"), "-o", str(out), "--dtype", "float16", "--json"]) == 0

    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["folder"] == str(out) and record["dtype"] == "float16" and record["end_ids"] == [2, 3]
    assert "quantised (Q8_0); its weights were dequantised to float16" in printed.err
    assert "chat_template.jinja" in printed.err
    assert set(Checkpoint.open(out).n_by_dtype) == {"F16"}
    assert main(["inspect", str(out)]) == 0 and main(["inspect", str(out / "conversion.json")]) == 0
    assert "record of a conversion" in capsys.readouterr().out


def test_an_unquantised_model_with_a_template_needs_no_warning(tmp_path: Path, capsys: Capture) -> None:
    write_gguf(tmp_path / "model.gguf", more=lambda writer: writer.add_chat_template("{{ messages[0]['content'] }}"))

    assert main(["convert", str(tmp_path / "model.gguf"), "-o", str(tmp_path / "out")]) == 0

    assert "warning" not in capsys.readouterr().err


def test_without_its_library_it_says_how_to_install_it(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "model.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed

    assert main(["convert", str(tmp_path / "model.gguf"), "-o", str(tmp_path / "out")]) == 2

    assert "pip install 'prosocial[gguf]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
