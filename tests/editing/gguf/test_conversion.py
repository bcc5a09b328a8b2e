"""A GGUF file as a checkpoint: the same logits, tokens, chat template and end ids as the model it was written from."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

gguf = pytest.importorskip("gguf")

from prosocial.core.chat import ChatTokenizer  # noqa: E402
from prosocial.core.errors import InputError, UnknownNameError  # noqa: E402
from prosocial.editing import Checkpoint, convert_gguf, load_model  # noqa: E402
from prosocial.editing.gguf import read_gguf_header  # noqa: E402
from prosocial.editing.gguf import values as gguf_values  # noqa: E402

from .writing import (  # noqa: E402
    MODELS,
    TEMPLATE,
    add_byte_level,
    byte_level_words,
    sentencepiece_words,
    write_gguf,
)

KINDS = gguf.GGMLQuantizationType


def logits(model: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(5, 200, (2, 24))
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_are_those_of_the_model_it_was_written_from(name: str, tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", name)

    record = convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype="float32")

    converted = load_model(tmp_path / "out")
    original = model.state_dict()
    for key, weight in converted.state_dict().items():
        assert torch.equal(weight, original[key]), key
    torch.testing.assert_close(logits(converted), logits(model), rtol=1e-5, atol=1e-5)
    assert record.unread == []
    assert record.fingerprint == Checkpoint.open(tmp_path / "out").fingerprint()


def test_the_scaling_of_rotary_embeddings_matters(tmp_path: Path) -> None:
    """The control of the test above: without the factors, the logits are others."""
    write_gguf(tmp_path / "model.gguf", "llama 3.1")
    write_gguf(tmp_path / "plain.gguf", "llama 3.1", change=lambda tensors: tensors.pop("rope_freqs.weight"))
    scaled, plain = (
        logits(load_model(convert(tmp_path / f"{name}.gguf", tmp_path / name))) for name in ("model", "plain")
    )

    assert not torch.allclose(scaled, plain, rtol=1e-3, atol=1e-3)


def convert(file: Path, out: Path) -> Path:
    convert_gguf(file, out, dtype="float32")
    return out


@pytest.mark.parametrize("name", ["llama 2", "gemma 3", "qwen3 moe"])
def test_quantised_weights_are_within_half_a_step(name: str, tmp_path: Path) -> None:
    """Q8_0: blocks of 32 numbers, one step of 1/127 of the block's largest number each, stored as float16."""
    model = write_gguf(tmp_path / "model.gguf", name, kind=KINDS.Q8_0)

    record = convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype="float32")

    assert record.source.quantised == ["Q8_0"]
    converted, n_changed = load_model(tmp_path / "out").state_dict(), 0
    for key, weight in model.state_dict().items():
        if weight.dim() < 2:
            assert torch.equal(converted[key], weight)
            continue
        blocks = weight.reshape(-1, 32)
        step = blocks.abs().amax(dim=1, keepdim=True) / 127
        error = (converted[key].reshape(-1, 32) - blocks).abs()
        assert (error <= step * (0.5 + 127 * 2.0**-11) + 1e-7).all(), key
        n_changed += bool(error.any())
    assert n_changed > 5


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K"])
def test_pieces_are_dequantised_like_the_whole(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = write_random(tmp_path / "tensor.gguf", KINDS[kind])
    monkeypatch.setattr(gguf_values, "PIECE", 512)
    header = read_gguf_header(tmp_path / "tensor.gguf")

    values = gguf_values.dequantised(header, header.tensors["x"])

    with np.errstate(all="ignore"):
        assert np.array_equal(values, gguf.dequantize(stored, KINDS[kind]), equal_nan=True)


@pytest.mark.parametrize("kind", ["Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL", "TQ1_0", "MXFP4"])
def test_rarer_types_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_pieces_are_dequantised_like_the_whole(kind, tmp_path, monkeypatch)


def write_random(file: Path, kind: "gguf.GGMLQuantizationType") -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_bytes = 256 // block * block_bytes
    stored = np.random.default_rng(0).integers(0, 256, (7, n_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tensor("x", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_the_dtype_is_one_rounding(dtype: str, torch_dtype: torch.dtype, tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf")

    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype=dtype)

    converted = load_model(tmp_path / "out", dtype=None)
    assert converted.dtype == torch_dtype
    for key, weight in converted.state_dict().items():
        assert torch.equal(weight, model.state_dict()[key].to(torch_dtype)), key


def test_a_sentencepiece_vocabulary_gives_the_files_tokens(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", more=lambda writer: writer.add_chat_template(TEMPLATE))

    record = convert_gguf(tmp_path / "model.gguf", tmp_path / "out")

    words, tokenizer = sentencepiece_words(), ChatTokenizer(tmp_path / "out")
    assert [words[index] for index in tokenizer.encode_text("the bat")] == ["▁the", "▁", "b", "at"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("at")[0] == words.index("<s>")  # add_bos_token
    assert tokenizer.end_ids == (2, 3)
    assert record.end_ids == [2, 3] and record.has_chat_template
    ids = tokenizer.encode_chat([{"role": "user", "content": "at"}])
    assert [words[index] for index in ids][-2:] == ["at", "<end_of_turn>"]
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE


def test_a_byte_level_vocabulary_gives_the_files_tokens(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", "qwen3", vocabulary=add_byte_level)

    record = convert_gguf(tmp_path / "model.gguf", tmp_path / "out")

    words, tokenizer = byte_level_words(), AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.encode("at the<think> bat<|im_end|>")
    assert [words[index] for index in ids] == ["at", "Ġthe", "<think>", "Ġ", "b", "at", "<|im_end|>"]
    assert record.end_ids == [1, 0] and tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id == 0
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [1, 0]


def test_the_record_says_what_was_converted(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, kind=KINDS.Q8_0, more=lambda writer: writer.add_license("mit"))
    seen: list[tuple[int, int]] = []

    record = convert_gguf(file, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))

    assert record.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.source.general["license"] == "mit" and record.source.n_by_type["Q8_0"] > 5
    assert record.libraries["gguf"]
    assert json.loads((tmp_path / "out" / "conversion.json").read_text()) == record.to_json()
    assert str(tmp_path) not in (tmp_path / "out" / "conversion.json").read_text()
    assert "dequantised to bfloat16" in record.warnings[0] and "chat template" in record.warnings[1]
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)


def test_a_setting_without_a_place_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", more=lambda writer: writer.add_logit_scale(0.5))

    record = convert_gguf(tmp_path / "model.gguf", tmp_path / "out")

    assert record.unread == ["logit_scale"] and "logit_scale" in record.warnings[-1]


def test_an_existing_folder_and_an_unknown_dtype_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(InputError, match="should not exist yet"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    with pytest.raises(UnknownNameError, match="bfloat16"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "new", dtype="int8")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new").exists()


def test_a_number_that_the_dtype_lacks_is_refused(tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]) -> None:
        tensors["output_norm.weight"][0] = 1e6

    write_gguf(tmp_path / "model.gguf", change=enlarge)

    with pytest.raises(
        InputError, match=r"model\.norm\.weight should hold numbers that are finite in float16, 1 are not"
    ):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype="float16")
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype="bfloat16")
