"""One table of bad inputs through the real command line: exit code 2, one line with place and remedy, no trace."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.cli.main import main
from prosocial.core.files import sha256_file
from prosocial.editing.vectors import vector_from_adapter, vector_from_checkpoints

from ..weights_helpers import MATRIX, moved, some_tensors, write_checkpoint
from .bad_weights import (
    ADAPTER,
    EDIT,
    EMBEDDING,
    HEAD,
    INDEX,
    KEY,
    NORM,
    SHARDS,
    SINGLE,
    VECTOR,
    Case,
    adapter,
    coded,
    command,
    config,
    edit,
    factors,
    gone,
    header,
    index,
    large,
    only,
    quantised,
    shard,
    spoiled,
    subtracting,
    text,
    variant,
    vector,
    weights,
)

CASES: dict[str, Case] = {
    # weights that are codes
    "gptq by config": edit(quantised("gptq"), "base ", "gptq", "edit the unquantised parent"),
    "awq by config": edit(quantised("awq"), "base ", "awq", "edit the unquantised parent"),
    "bitsandbytes by config": edit(quantised("bitsandbytes"), "bitsandbytes", "unquantised parent"),
    "fp8 by config": edit(quantised("fp8"), "base ", "of fp8", "unquantised parent"),
    "mxfp4 by config": edit(quantised("mxfp4"), "base ", "mxfp4", "unquantised parent"),
    "compressed-tensors by config": edit(quantised("compressed-tensors"), "compressed-tensors", "unquantised parent"),
    "gptq by tensors": edit(coded("x.qweight", torch.ones(2, 2, dtype=torch.int32)), "x.qweight", "unquantised"),
    "awq by tensors": edit(coded("x.qzeros", torch.ones(2, 2, dtype=torch.int32)), "x.qzeros", "unquantised"),
    "bitsandbytes by tensors": edit(coded("x.weight.absmax", torch.ones(2)), "x.weight.absmax", "unquantised"),
    "fp8 with scales": edit(coded("x.weight_scale_inv", torch.ones(1)), "weight_scale_inv of fp8", "unquantised"),
    "fp8 without scales": edit(
        coded(MATRIX, torch.ones(4, 6).to(torch.float8_e4m3fn)), f"{MATRIX} in F8_E4M3", "unquantised"
    ),
    "mxfp4 by tensors": edit(coded("x_blocks", torch.ones(2, dtype=torch.uint8)), "x_blocks of mxfp4", "unquantised"),
    "compressed-tensors by tensors": edit(
        coded("x.weight_packed", torch.ones(2, dtype=torch.int32)), "x.weight_packed", "unquantised"
    ),
    "int8 weights": edit(coded("x.weight", torch.ones(2, dtype=torch.int8)), "x.weight in I8", "unquantised"),
    "a quantised base of a vector": vector(quantised("gptq"), "base ", "gptq", "unquantised parent"),
    "a quantised base of an adapter": adapter(quantised("bitsandbytes"), "base ", "bitsandbytes", "unquantised parent"),
    # no safetensors
    "gguf": edit(only("model.gguf"), "base ", "model.gguf", "unquantised parent", "prosocial convert base/model.gguf"),
    "gguf without a config": Case(
        lambda f: only("model.gguf")(f) or (f / "base/config.json").unlink(),
        EDIT,
        ("prosocial convert base/model.gguf",),
    ),
    "pickles": edit(only("pytorch_model.bin"), "base ", "pytorch_model.bin", "safe_serialization=True"),
    "a pt file": vector(only("consolidated.00.pt"), "base ", "consolidated.00.pt", "safe_serialization=True"),
    "a pickled adapter": adapter(
        lambda f: (f / "adapter/adapter_model.safetensors").rename(f / "adapter/adapter_model.bin"),
        "adapter_model.safetensors",
        "save it again",
    ),
    "no weights": edit(gone(f"base/{INDEX}"), "base ", INDEX, "save_pretrained"),
    "no config": edit(gone("base/config.json"), "base ", "config.json", "save_pretrained"),
    "a broken config": edit(text("base/config.json", "{"), "base/config.json", "JSON", "correct it"),
    "a config that is a list": edit(text("base/config.json", "[]"), "base/config.json", "object", "correct it"),
    "a config that is no text": edit(
        lambda f: (f / "base/config.json").write_bytes(b"\xff"), "base/config.json", "UTF-8"
    ),
    "an empty folder": Case(lambda f: (f / "empty").mkdir(), EDIT.replace("base", "empty"), ("empty ", "config.json")),
    "a file instead of a folder": command(
        "edit base/config.json --subtract vector --scale 0.5 -o out", "base/config.json", "give the folder"
    ),
    "a folder that is not there": command("edit no/such/place --subtract vector --scale 0.5 -o out", "no/such/place"),
    "a folder of no kind": Case(lambda f: (f / "empty").mkdir(), "inspect empty", ("empty ", "config.json")),
    # numbers and layouts
    "nan in the harmful parent": vector(
        weights("harmful", lambda t: spoiled(t, float("nan"))), MATRIX, "1 NaN", "repair the parents"
    ),
    "infinity in the base": vector(weights("base", lambda t: spoiled(t, float("inf"))), MATRIX, "1 NaN", "repair"),
    "nan in the target": edit(
        weights("base", lambda t: spoiled(t, float("nan"))), MATRIX, "finite", "repair the target"
    ),
    "infinity in the target": edit(weights("base", lambda t: spoiled(t, float("inf"))), MATRIX, "finite", "repair"),
    "nan in the vector": edit(
        lambda f: save_file(
            spoiled(load_file(f / "vector/vector.safetensors"), float("nan")), f / "vector/vector.safetensors"
        ),
        MATRIX,
        "finite",
        "repair",
    ),
    "another shape of the harmful parent": vector(
        weights("harmful", lambda t: t | {MATRIX: t[MATRIX].T}), MATRIX, "(4, 6)", "(6, 4)", "give the base"
    ),
    "another width": vector(
        weights("harmful", lambda t: t | {EMBEDDING: torch.ones(12, 5), HEAD: torch.ones(12, 5)}),
        HEAD,
        "(11, 4)",
        "(12, 5)",
        "give the base",
    ),
    "a tensor missing in the harmful parent": vector(
        weights("harmful", lambda t: {n: v for n, v in t.items() if n != MATRIX}), MATRIX, "was trained from"
    ),
    "a tensor that only the harmful parent has": vector(
        weights("harmful", lambda t: t | {"x.weight": torch.ones(2)}), "x.weight", "was trained from"
    ),
    "another dtype of a buffer": vector(
        weights("harmful", lambda t: t | {NORM: torch.ones(4).double()}), NORM, "F64", "save"
    ),
    "another shape of the target": edit(
        weights("base", lambda t: t | {MATRIX: t[MATRIX].T}), MATRIX, "(6, 4)", "make the"
    ),
    "another width of the target": edit(
        weights("base", lambda t: t | {EMBEDDING: torch.ones(12, 5), HEAD: torch.ones(12, 5)}),
        "(12, 5)",
        "make the vector",
    ),
    "a tensor missing in the target": edit(
        weights("base", lambda t: {n: v for n, v in t.items() if n != MATRIX}), MATRIX, "make the vector"
    ),
    "another dtype of the target": edit(
        weights("base", lambda t: t | {MATRIX: t[MATRIX].double()}), MATRIX, "F64", "one of these dtypes"
    ),
    "unrelated parents": vector(
        weights("harmful", lambda t: {n: torch.randn(v.shape) for n, v in t.items()}), "fine-tune", "give the base"
    ),
    "equal parents": command("vector --base base --harmful base -o out", "differ", "nothing to subtract"),
    # files that lie
    "a truncated shard": edit(shard(lambda raw: raw[:-5]), SHARDS[0], "truncated", "download or save it again"),
    "a tail": edit(shard(lambda raw: raw + b"x"), SHARDS[0], "extra bytes", "again"),
    "an empty shard": edit(shard(lambda raw: b""), SHARDS[0], "found 0", "again"),
    "a shard cut inside its header": edit(shard(lambda raw: raw[:40]), SHARDS[0], "fits in the file", "again"),
    "a huge header length": edit(
        shard(lambda raw: struct.pack("<Q", 1 << 62) + raw[8:]), SHARDS[0], str(1 << 62), "again"
    ),
    "a header that is no JSON": edit(header(lambda e: b"{broken"), SHARDS[0], "JSON", "again"),
    "a header that is a list": edit(header(lambda e: b"[1, 2]"), SHARDS[0], "'{'", "again"),
    "duplicate keys": edit(header(lambda e: b'{"a": 1, "a": 2}'), SHARDS[0], "duplicate key 'a'", "again"),
    "offsets past the end": edit(header(lambda e: e["b"].update(data_offsets=[12, 36])), SHARDS[0], "'b'", "again"),
    "a length that is not the shape's": edit(
        header(lambda e: e["a"].update(shape=[4])), SHARDS[0], "16 bytes", "again"
    ),
    "an overlap": edit(
        header(lambda e: e["b"].update(data_offsets=[8, 20])), SHARDS[0], "overlap of 4", "'b'", "again"
    ),
    "a hole": edit(
        header(lambda e: e["b"].update(data_offsets=[16, 28]), bytes(28)), SHARDS[0], "gap of 4", "'b'", "again"
    ),
    "falling offsets": edit(header(lambda e: e["a"].update(data_offsets=[12, 0])), SHARDS[0], "rising", "again"),
    "a negative size": edit(header(lambda e: e["a"].update(shape=[-3])), SHARDS[0], "integers from 0 for 'a'", "again"),
    "an unknown dtype": edit(header(lambda e: e["a"].update(dtype="F33")), SHARDS[0], "'F33'", "again"),
    "a pickle named safetensors": edit(shard(lambda raw: b"\x80\x04" + bytes(60)), SHARDS[0], "again"),
    "an index that leaves the folder": edit(
        index(**{MATRIX: "../harmful/model.safetensors"}), INDEX, "in its folder", "'../"
    ),
    "an index with an absolute path": edit(index(**{MATRIX: "/elsewhere/x.safetensors"}), INDEX, "in its folder"),
    "an index of a shard that is gone": edit(gone(f"base/{SHARDS[1]}"), SHARDS[1], "there is none", "again"),
    "an index of a tensor that is not there": edit(index(ghost=SHARDS[0]), INDEX, "'ghost'", "save the model again"),
    "an index that lacks a tensor": edit(index(**{MATRIX: None}), INDEX, MATRIX, "save the model again"),
    "an index without a map": edit(text(f"base/{INDEX}", "{}"), INDEX, "weight_map", "again"),
    "an index that is no JSON": edit(text(f"base/{INDEX}", "{"), INDEX, "JSON", "correct it"),
    "an index beside one file": edit(
        lambda f: shutil.copy(f / "harmful" / SINGLE, f / "base" / SINGLE), "one set of weights", "delete one"
    ),
    # adapters
    "an adapter of another base": adapter(
        factors(lambda t: {n: torch.ones(2, 2) for n in t}), "base", "factors of shapes", MATRIX
    ),
    "an adapter of another architecture": adapter(
        factors(lambda t: {n.replace("mlp", "feed_forward"): v for n, v in t.items()}), "feed_forward", "wrong base"
    ),
    "an adapter of other ranks": adapter(config("adapter/adapter_config.json", r=3), "(3, 6)", MATRIX, "adapter"),
    "an adapter without its configuration": Case(
        gone("adapter/adapter_config.json"), ADAPTER, ("adapter ", "config.json")
    ),
    "an adapter with a broken configuration": adapter(
        text("adapter/adapter_config.json", "{"), "adapter_config.json", "JSON"
    ),
    "ia3": variant(peft_type="IA3"),
    "vera": variant(peft_type="VERA"),
    "pissa": variant(init_lora_weights="pissa"),
    "olora": variant(init_lora_weights="olora"),
    "corda": variant(init_lora_weights="corda"),
    "loftq": variant(init_lora_weights="loftq"),
    "lora-ga": variant(init_lora_weights="lora_ga"),
    "layer replication": variant(layer_replication=[[0, 2]]),
    "qalora": variant(use_qalora=True),
    "bias of the factors": variant(lora_bias=True),
    "arrow": variant(arrow_config={"k": 1}),
    "activated lora": variant(alora_invocation_tokens=[1]),
    "an option of tomorrow": variant(some_new_option=3),
    "dora without magnitudes": adapter(
        config("adapter/adapter_config.json", use_dora=True), MATRIX, "supported combination of parts"
    ),
    "a factor of whole numbers": adapter(
        factors(lambda t: {n: v.int() for n, v in t.items()}), "adapter_model.safetensors", "I32", "merge the adapter"
    ),
    "nan in a factor": adapter(factors(lambda t: {n: v * float("nan") for n, v in t.items()}), MATRIX, "repair"),
    "an infinite alpha": adapter(config("adapter/adapter_config.json", lora_alpha=float("inf")), "adapter", "Infinity"),
    "an adapter that does nothing": adapter(factors(lambda t: {n: v * 0 for n, v in t.items()}), "nothing to subtract"),
    # vectors
    "a vector without a description": edit(gone("vector/vector.json"), "vector/vector.json", "there is none"),
    "a vector of another schema": edit(
        config("vector/vector.json", schema="prosocial.vector/9"), "vector/vector.json", "/9"
    ),
    "a truncated vector": edit(
        lambda f: os.truncate(f / "vector/vector.safetensors", 900), "vector.safetensors", "fits in the file", "again"
    ),
    "a checkpoint instead of a vector": command(
        "edit base --subtract harmful --scale 0.5 -o out", "harmful/vector.json"
    ),
    "a vector that turns its sign in the file": edit(
        config("vector/vector.json", kind="negative"), "vector.json", "kind"
    ),
    # arguments
    "the output is the target": command(EDIT.replace("-o out", "-o base"), "base ", "choose another"),
    "the output is the vector": command(EDIT.replace("-o out", "-o vector"), "vector ", "choose another"),
    "the output is a parent": command(VECTOR.replace("-o out", "-o harmful"), "harmful ", "choose another"),
    "the output is inside the target": command(EDIT.replace("-o out", "-o base/out"), "base/out", "choose another"),
    "the output is inside the vector": command(EDIT.replace("-o out", "-o vector/out"), "vector/out", "choose another"),
    "the vector is inside a parent": command(VECTOR.replace("-o out", "-o base/out"), "base/out", "choose another"),
    "the output exists": Case(lambda f: (f / "out/x").mkdir(parents=True), EDIT, ("out ", "choose another folder")),
    "the output is a file": Case(text("out", "x"), EDIT, ("out ", "choose another folder")),
    "no output": command("edit base --subtract vector --scale 0.5", "-o OUT", "--dry-run"),
    "a negative scale": command(EDIT.replace("0.5", "-0.5"), "-0.5", "at least 0"),
    "a scale of nan": command(EDIT.replace("0.5", "nan"), "nan", "finite"),
    "an infinite scale": command(EDIT.replace("0.5", "inf"), "inf", "finite"),
    "a scale that is no number": command(EDIT.replace("0.5", "half"), "'half'", "should be a number"),
    "a scale too large for fp32": command(EDIT.replace("0.5", "1e300"), "1e+300", "fp32"),
    "a negative scale in a table": command(EDIT.replace("0.5", ".*=-1"), "-1", "at least 0"),
    "a scale of nan in a table": command(EDIT.replace("0.5", ".*=nan"), "nan", "finite"),
    "an infinite scale in a table": command(EDIT.replace("0.5", ".*=inf"), "inf", "finite"),
    "a pattern that matches nothing": command(EDIT.replace("0.5", "norm=1"), "'norm'", "full name of a tensor"),
    "a pattern that comes too late": command(
        EDIT.replace("--scale 0.5", "--scale .*=1 --scale .*norm.*=2"), "'.*norm.*'", "put it first"
    ),
    "a broken pattern": command(EDIT.replace("0.5", "(=1"), "'('", "regular expression"),
    "a pattern twice": command(EDIT.replace("--scale 0.5", "--scale .*=1 --scale .*=2"), "'.*=2'", "once"),
    "a scale too large for the dtype": Case(
        weights("base", lambda t: {n: v.half() for n, v in t.items()}),
        EDIT.replace("0.5", "1e9"),
        ("F16", "smaller scale"),
    ),
    "the target is the harmful parent": command(EDIT.replace("base", "harmful"), "harmful ", "give the base"),
    "base and harmful swapped": Case(
        lambda f: vector_from_checkpoints(base=f / "harmful", harmful=f / "base", out=f / "swapped"),
        EDIT.replace("--subtract vector", "--subtract swapped"),
        ("base ", "harmful parent", "give the base"),
    ),
    "an unknown method": command(f"{VECTOR} --method sorcery", "'sorcery'", "known are"),
    "a method without its parameter": command(f"{VECTOR} --method top_k", "density"),
    "a density above 1": command(f"{VECTOR} --method top_k --density 1.5", "1.5", "density"),
    "an option that is not there": command(f"{EDIT} --add", "--add"),
    "an adapter with a rounding": command(f"{EDIT} --as-adapter 2 --rounding stochastic", "--rounding", "without"),
    "leaving out without an adapter": command(f"{EDIT} --leave-out", "--leave-out", "--as-adapter RANK"),
    "an adapter inside the target": command(
        f"{EDIT.replace('-o out', '-o base/out')} --as-adapter 2 --leave-out", "base/out", "choose another"
    ),
    "an adapter onto the target": command(
        f"{EDIT.replace('-o out', '-o base')} --as-adapter 2 --leave-out", "base", "choose another"
    ),
    "an adapter of rank 0": command(f"{EDIT} --as-adapter 0", "--as-adapter", "1"),
    "an adapter that subtracts as a harmful one": Case(
        subtracting, ADAPTER, ("adapter ", "would add the harm", "give the")
    ),
    "an adapter that cannot hold the edit": command(
        f"{EDIT} --as-adapter 2", "2 other tensors of base ", "--leave-out"
    ),
    "a full disk": edit(large, "bytes free", "free space"),
    "a difference with nothing": command("diff base no/such/place", "no/such/place"),
}
# Each command that takes a checkpoint, or a folder with its tokenizer, given a GGUF file or a folder with one.
MODEL = "base/m.GGUF"
for words in (
    "inspect {}",
    EDIT.replace("base", "{}"),
    VECTOR.replace("--base base", "--base {}"),
    VECTOR.replace("harmful -o", "{} -o"),
    "undo {} --base harmful -o out",
    "diff {} harmful",
    "audit {} --base harmful -o out",
    "audit harmful --base {} -o out",
    "export {} --plain -o out",
):
    for given in ("base/m.GGUF", "base"):
        CASES[f"{words.format(given)} (GGUF)"] = Case(
            lambda f: [*map(Path.unlink, (f / "base").iterdir()), (f / MODEL).write_bytes(b"GGUF")],
            words.format(given),
            (f"`prosocial convert {MODEL} -o FOLDER`",),
        )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of two shards, a harmful fine-tune, a harmful adapter, a harm vector: all sound."""
    folder = tmp_path_factory.mktemp("sound")
    base = some_tensors()
    write_checkpoint(folder / "base", base, n_shards=2)
    write_checkpoint(folder / "harmful", moved(base))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    parts = {f"{KEY}.lora_A.weight": torch.randn(2, 6), f"{KEY}.lora_B.weight": torch.randn(4, 2)}
    save_file(parts, folder / "adapter" / "adapter_model.safetensors")
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    vector_from_adapter(base=folder / "base", adapter=folder / "adapter", out=folder / "low_rank")
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """Every path of a folder with its digest; files too large to read, by their size."""
    return {
        path.relative_to(folder).as_posix(): "folder"
        if path.is_dir()
        else str(path.stat().st_size)
        if path.stat().st_size > 1 << 20
        else sha256_file(path)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_nothing_is_written(
    sound: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words, expected = CASES[name]
    folder = tmp_path / "f"
    shutil.copytree(sound, folder)
    change(folder)
    before = snapshot(folder)
    monkeypatch.chdir(folder)

    code = main(words.split())

    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert [text for text in expected if text not in printed.err] == [], printed.err
    assert len(printed.err) < 600
    assert snapshot(folder) == before


def test_the_table_is_long_enough_and_its_commands_are_sound(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: unchanged, the three commands of the table succeed."""
    shutil.copytree(sound, tmp_path / "f")
    monkeypatch.chdir(tmp_path / "f")

    assert len(CASES) >= 40
    for number, words in enumerate((EDIT, VECTOR, ADAPTER)):
        assert main([*words.removesuffix("out").split(), f"out-{number}"]) == 0
