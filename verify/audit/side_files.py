"""Comparison of the files that change a model's output without changing its weights, such as the chat template."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prosocial.core.files import read_bytes
from prosocial.core.json_text import parse_json
from prosocial.editing.checkpoints.folder import Checkpoint

from .audit_document import SideDifference

ANONYMOUS = frozenset(("_name_or_path", "_from_model_config", "transformers_version"))
RENAMED = {"torch_dtype": "dtype"}  # old name and the name that transformers 5 writes
TOKENIZER = frozenset(
    (
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
    )
)
TEMPLATE_KEY = "chat_template"


def compare_side_files(base: Checkpoint, model: Checkpoint) -> tuple[SideDifference, ...]:
    """Return the differences, sorted by part and file; licences, model cards and the like are ignored.

    JSON files are compared by value, without keys that only state a file's origin.

    Raises:
        ArtefactError: a JSON file of base or model cannot be parsed.
    """
    files = [set(each.side_files) for each in (base, model)]
    differences = [*_chat_template(base.folder, model.folder)]
    for path in sorted(files[0] | files[1]):
        part = _part(path)
        if part is None:
            continue
        present = [path in each for each in files]
        if part == "code" and present == [True, False]:
            continue  # a publication leaves code out; the model is loaded without it
        if present == [True, True]:
            differences += _file(part, path, base.folder / path, model.folder / path)
        else:
            where = "not in the model" if present[0] else "not in the base"
            differences.append(SideDifference(part=part, file=path, difference=where))
    return tuple(sorted(differences, key=lambda each: (each.part, each.file)))


def changes_output(path: str) -> bool:
    """Return whether a file can change the model's output (licences, model cards and the like cannot)."""
    return _part(path) is not None or path == "chat_template.jinja"


def _part(path: str) -> str | None:
    """Return the part that a file belongs to; None for a file that does not change the model's output."""
    if path == "config.json":
        return "config"
    if path == "generation_config.json":
        return "generation config"
    if path in TOKENIZER:
        return "tokenizer"
    if path.startswith("additional_chat_templates/"):
        return "chat template"
    return "code" if path.endswith(".py") else None


def _chat_template(base: Path, model: Path) -> Iterator[SideDifference]:
    """Compare the default chat templates, whichever file each folder stores them in."""
    (_, before), (file, after) = map(_read_template, (base, model))
    if before != after:
        changed = {(True, False): "is missing", (False, True): "is not in the base"}
        yield SideDifference(
            part="chat template",
            file=file,
            difference=changed.get((before is not None, after is not None), "text differs"),
        )


def _read_template(folder: Path) -> tuple[str, object]:
    if (folder / "chat_template.jinja").is_file():
        return "chat_template.jinja", (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            template = _read_json(folder / name).get(TEMPLATE_KEY)
            if template is not None:
                return name, template
    return "tokenizer_config.json", None


def _file(part: str, path: str, base: Path, model: Path) -> Iterator[SideDifference]:
    if base.read_bytes() == model.read_bytes():
        return
    if not path.endswith(".json"):
        yield SideDifference(part=part, file=path, difference="bytes differ")
        return
    before, after = (
        {RENAMED.get(key, key): value for key, value in _read_json(each).items()} for each in (base, model)
    )
    ignored = ANONYMOUS | {TEMPLATE_KEY}
    keys = [key for key in sorted({*before, *after} - ignored) if before.get(key) != after.get(key)]
    if keys:
        yield SideDifference(part=part, file=path, difference=_describe(keys, before, after))


def _describe(keys: list[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    changes = [f"{key}: {_short(before.get(key))} -> {_short(after.get(key))}" for key in keys[:3]]
    return "; ".join(changes) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:40]


def _read_json(path: Path) -> dict[str, Any]:
    value = parse_json(read_bytes(path), where=str(path), finite=False)
    return value if isinstance(value, dict) else {"": value}
