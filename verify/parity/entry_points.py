"""What clients of a bundle read besides its graph, compared with what export writes for the same reference.

Other clients start from `genai_config.json`, a preset or `generation_config.json`. Each such file is derived again, or
compared with the reference's, as a whole: a setting that nobody thought of is compared too.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.export.bundle_files.prompt_record import PROMPT_RECORD, SCHEMA, check_prompts, conversations_for
from prosocial.export.bundle_files.verified import VerifiedFiles, private_folder
from prosocial.export.bundling import COPIED, genai_of
from prosocial.export.presets import PRESET_FOLDER, SUFFIX, write_presets
from prosocial.export.runtime.bundle import precision_of
from prosocial.export.runtime.session import ALLOWED_OPTIONS, import_runtime
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig

GENAI_FILE = "genai_config.json"
INERT_SUFFIXES = (".md", ".txt", ".png", ".jpg", ".svg", ".pdf", "")  # documents, which no client loads
OPTIONS = ("model", "decoder", "session_options")
TITLES = {
    "genai_config": "Settings in genai_config.json other than export derives",
    "presets": "Presets other than export derives",
    "side_files": "Files other than the reference's",
    "other_files": "Files that nothing was compared with",
    "genai_replies": "Replies of onnxruntime-genai that the bundle would not give",
}
Differences = dict[str, tuple[str, ...]]


def entry_points(bundle: Path, reference: Path, backbone: Any) -> Differences:
    """Return what differs, by the name of the check; empty tuples where nothing does.

    Args:
        bundle: folder of the bundle.
        reference: folder that it should have been exported from.
        backbone: the reference's backbone.

    Raises:
        ArtefactError: the bundle differs from its manifest.
    """
    files = VerifiedFiles.open(bundle)
    with files.side_files() as place:
        expected = _genai(files, reference, backbone)
        config = DecodingConfig.read(reference) if files.manifest.get("kind") == "steered" else None
        return {
            "genai_config": tuple(_genai_differences(expected, place)),
            "presets": tuple(_preset_differences(files, config)),
            "side_files": tuple(_side_differences(files, place, reference)),
            "other_files": tuple(_other_files(files)),
        }


def differences(expected: Any, actual: Any, where: str = "") -> Iterator[str]:
    """Yield the path of each value that differs between two JSON values.

    Examples:
        >>> list(differences({"a": {"b": 1, "c": [2]}}, {"a": {"b": 1.5, "c": [2]}, "d": None}))
        ['a.b', 'd']
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted({*expected, *actual}):
            path = f"{where}.{key}" if where else key
            if (key in expected) != (key in actual):
                yield path
            else:
                yield from differences(expected[key], actual[key], path)
    elif json.dumps(expected, sort_keys=True) != json.dumps(actual, sort_keys=True):  # True is not 1 here
        yield where


def _genai(files: VerifiedFiles, reference: Path, backbone: Any) -> dict[str, Any]:
    """Return the content of `genai_config.json` that export writes for a reference."""
    from prosocial.export.graph.wrapper import PlainGraph

    graph = PlainGraph(backbone, files.manifest["profile"]).eval()
    precision = precision_of(files.folder, files.manifest)
    return dict(json.loads(json.dumps(genai_of(graph, ChatTokenizer(reference), precision))))


def _genai_differences(expected: Mapping[str, Any], place: Path) -> Iterator[str]:
    """Yield the settings that differ; threads and log level may be set for a machine."""
    if not (place / GENAI_FILE).is_file():
        yield f"{GENAI_FILE} is missing"
        return
    free = {".".join((*OPTIONS, name)) for name in ALLOWED_OPTIONS}
    for path in differences(expected, read_json(place / GENAI_FILE)):
        if path not in free:
            yield f"{GENAI_FILE}: {path}"


def _preset_differences(files: VerifiedFiles, config: DecodingConfig | None) -> Iterator[str]:
    """Yield the presets that are missing, superfluous, or hold other values than the reference's safety configs."""
    actual = {name: content for name, content in files.contents.items() if name.startswith(f"{PRESET_FOLDER}/")}
    with private_folder(files.folder, actual) as place, private_folder(files.folder, {}) as again:
        expected = {path.relative_to(again).as_posix(): path for path in write_presets(again, config)} if config else {}
        for name in sorted({*actual, *expected}):
            if name not in expected or name not in actual or _preset(place / name) != _preset(expected[name]):
                yield name


def _preset(path: Path) -> Any:
    """Return versions and parameters of an adapter file, with the bytes of each value; None if it is none."""
    try:
        adapter = import_runtime().AdapterFormat.read_adapter(str(path))
        values = {name: value.numpy() for name, value in adapter.get_parameters().items()}
        versions = adapter.get_adapter_version(), adapter.get_model_version()
    except Exception:  # the errors of onnxruntime have no common base class below Exception
        return path
    return versions, {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in values.items()}


def _side_differences(files: VerifiedFiles, place: Path, reference: Path) -> Iterator[str]:
    """Yield the copied files that are not the reference's; JSON is compared by value."""
    is_plain = files.manifest.get("kind") == "plain"
    for name in COPIED:
        ours, theirs = place / name, reference / name
        if name == DECODING_FILE and (is_plain or ours.is_file()):
            continue  # compared by its keys
        if ours.is_file() != theirs.is_file() or (ours.is_file() and _value(ours) != _value(theirs)):
            yield name
    if (place / PROMPT_RECORD).is_file() and not _records_prompts_of(reference, place / PROMPT_RECORD):
        yield PROMPT_RECORD


def _records_prompts_of(reference: Path, path: Path) -> bool:
    """Whether a file records the prompts that export records for a reference, with the ids of its tokenizer."""
    tokenizer = ChatTokenizer(reference)
    try:
        record = read_json(path, schema=SCHEMA)
        check_prompts(tokenizer, record, source=str(path))
    except ArtefactError:
        return False
    return [row["messages"] for row in record["prompts"]] == conversations_for(tokenizer)


def _value(path: Path) -> Any:
    if path.suffix == ".json":
        try:
            return json.dumps(read_json(path), sort_keys=True)
        except ArtefactError:
            pass
    return path.read_bytes()


def _other_files(files: VerifiedFiles) -> Iterator[str]:
    known = {*COPIED, GENAI_FILE, PROMPT_RECORD, *files.graph_files()}
    for name in files.contents:
        is_preset = name.startswith(f"{PRESET_FOLDER}/") and name.endswith(SUFFIX)
        if name not in known and not is_preset and Path(name).suffix not in INERT_SUFFIXES:
            yield name


def unexpected_tokens(
    tokens: list[int], logits: "np.ndarray[Any, Any]", *, ends: set[int], most: int, tie: float
) -> int:
    """Return at how many steps a client's greedy reply is not the bundle's choice.

    Args:
        tokens: reply of n tokens without its end token.
        logits: [n + 1, V] of the bundle after the prompt and after each token.
        ends: ids of end tokens.
        most: largest number of tokens that the client could give; a shorter reply ended with an end token.
        tie: distance from the largest logit within which rounding may choose another token.

    Examples:
        >>> row = np.array([[0.0, 3.0, 2.0]])
        >>> unexpected_tokens([1], np.repeat(row, 2, 0), ends={2}, most=1, tie=0.1)
        0
        >>> unexpected_tokens([1], np.repeat(row, 2, 0), ends={2}, most=9, tie=0.1)
        1
    """
    highest = np.where(np.isnan(logits), np.inf, logits).max(axis=1)
    wrong = sum(token in ends or not logits[at, token] >= highest[at] - tie for at, token in enumerate(tokens))
    if len(tokens) < most:
        wrong += not logits[len(tokens), sorted(ends)].max() >= highest[len(tokens)] - tie
    return int(wrong)
