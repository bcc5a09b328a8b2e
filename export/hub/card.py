"""The model card of an artefact, made from its records: what was done, what was measured, how to run it, its limits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, UndefinedError

from prosocial.editing.edits.record import RECORD_NAME, EditRecord, read_record
from prosocial.editing.errors import ArtefactError
from prosocial.editing.files import read_json, storage_errors

from ..card import STEERED
from ..decoding import DecodingConfig
from ..manifest import read_manifest
from ..precision import PRECISIONS
from .base import Base
from .kinds import ADAPTER_RECORD, REWARD_CONFIG, Kind
from .verification import Verification

CARD_FILE = "README.md"
TEMPLATE = "card.md.j2"
RELATIONS = {Kind.CHECKPOINT: "finetune", Kind.ADAPTER: "adapter", Kind.REWARD: "adapter", Kind.BUNDLE: "finetune"}
LIBRARIES = {Kind.BUNDLE: "onnx", Kind.CHECKPOINT: "transformers", Kind.ADAPTER: "peft", Kind.REWARD: "peft"}
_FRONT = re.compile(r"\A---\n(?P<yaml>.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        name: `ORG/NAME`. folder: the artefact. kind: what it is. license: identifier.
        base: what was edited, if it is on the Hub. verification: what was verified.
        comparison: the document of a comparison, base against edited; None: none was given.
    """

    name: str
    folder: Path
    kind: Kind
    license: str
    base: Base | None
    verification: Verification
    comparison: Mapping[str, Any] | None

    @property
    def record(self) -> EditRecord | None:
        """The record of the edit, where the folder holds one."""
        return read_record(self.folder) if (self.folder / RECORD_NAME).is_file() else None

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a bundle."""
        return read_manifest(self.folder) if self.kind is Kind.BUNDLE else None

    @property
    def decoding(self) -> DecodingConfig | None:
        """The decoding config of a steered bundle."""
        manifest = self.manifest
        return DecodingConfig.read(self.folder) if manifest and manifest.get("kind") == "steered" else None

    @property
    def claims(self) -> tuple[str, ...]:
        """What the card says, in short."""
        found = self.verification
        lines = [f"{found.title}: {found.verdict} ({found.told})"]
        lines += [f"{term['method']} vector {term['digest'][:16]} subtracted at {term['scale']}" for term in self.terms]
        return (*lines, *(f"{row['title']}: {row['change']}" for row in comparison_rows(self.comparison)))

    @property
    def terms(self) -> list[dict[str, str]]:
        """What was subtracted: method, digest and scale of each vector."""
        if self.kind is Kind.ADAPTER:
            said = read_json(self.folder / ADAPTER_RECORD)
            scales = sorted(set(said["coefficients"].values()))
            return [{"method": "harm", "digest": said["vector_blake3"], "scale": _scales([f"{s:g}" for s in scales])}]
        record = self.record
        return [
            {"method": term.method, "digest": term.blake3, "scale": _scales([one.decimal for one in term.coefficients])}
            for term in (record.terms if record else ())
        ]

    @property
    def base_fingerprint(self) -> str:
        """The fingerprint of the weights that were edited, or that an adapter belongs to; empty where none is known."""
        for name in (ADAPTER_RECORD, REWARD_CONFIG):
            if (self.folder / name).is_file():
                return str(read_json(self.folder / name)["base_fingerprint"])
        record = self.record
        return record.base.fingerprint if record else ""


def render_card(facts: CardFacts) -> str:
    """Return the card as Markdown with the Hub's metadata at its head; every text from a record is made plain.

    Raises:
        ArtefactError: a record of the folder is missing or of another form.
    """
    rows, manifest, decoding, record = comparison_rows(facts.comparison), facts.manifest, facts.decoding, facts.record
    given = dict(
        name=facts.name,
        kind=str(facts.kind),
        base=facts.base,
        base_fingerprint=facts.base_fingerprint,
        terms=facts.terms,
        n_changed=sum(tensor.changed for tensor in record.result.tensors.values()) if record else None,
        n_tensors=len(record.result.tensors) if record else None,
        inner_product=record.result.inner_product if record else None,
        verification=facts.verification,
        rows=rows,
        systems=_systems(facts.comparison),
        judge=(facts.comparison or {}).get("comparison", {}).get("judge"),
        manifest=manifest,
        precision=PRECISIONS[manifest.get("precision", "fp32")] if manifest else None,
        decoding=decoding,
        configs=_configs(decoding),
        attributes=read_json(facts.folder / REWARD_CONFIG)["attributes"] if facts.kind is Kind.REWARD else (),
        raw_clients=STEERED.split("```python")[0].strip(),
    )
    try:
        text = _template().render(given)
    except UndefinedError as missing:
        raise ArtefactError(f"the report on {facts.name} should be as it was written: {missing.message}") from None
    return f"---\n{_metadata(facts, rows)}\n---\n\n{text}"


def write_card(folder: Path, text: str) -> None:
    """Write a card into a folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    with storage_errors(folder / CARD_FILE):
        (folder / CARD_FILE).write_text(text, encoding="utf-8")


def card_license(card: str) -> str | None:
    """Return the licence that a card's metadata name, None where they name none."""
    import yaml

    front = _FRONT.match(card)
    try:
        said = yaml.safe_load(front["yaml"]) if front else None
    except yaml.YAMLError:
        return None
    found = said.get("license") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def comparison_rows(document: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a row for each rate of a comparison: its title, each system's rate, and the change with its interval."""
    if document is None:
        return []
    try:
        return _rows(document["comparison"])
    except (KeyError, TypeError, IndexError):
        raise ArtefactError(
            "the comparison should be as `prosocial compare` wrote it, it is not: run it again"
        ) from None


def _rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    reference, final = comparison["reference"], comparison["systems"][-1]
    return [
        {
            "name": metric["name"],
            "title": metric["title"],
            "rates": [_share(metric["rates"][system]) for system in comparison["systems"]],
            "change": _points(metric["differences"][final]),
            "value": metric["rates"][final]["estimate"],
        }
        for metric in comparison["metrics"]
        if final != reference and final in metric["differences"]
    ]


def _metadata(facts: CardFacts, rows: Sequence[Mapping[str, Any]]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="safety-probes",
            dataset_name=str((facts.comparison or {}).get("title", "safety probes")),
            metric_type=row["name"],
            metric_name=row["title"],
            metric_value=round(row["value"], 6),
        )
        for row in rows
        if row["value"] is not None
    ]
    extra: dict[str, Any] = {"base_model_relation": _relation(facts)} if facts.base else {}
    data = ModelCardData(
        license=facts.license,
        base_model=facts.base.name if facts.base else None,
        library_name=LIBRARIES.get(facts.kind),
        pipeline_tag=None if facts.kind is Kind.REWARD else "text-generation",
        tags=_tags(facts),
        model_name=facts.name.split("/")[1],
        eval_results=results or None,
        **extra,
    )
    return str(data.to_yaml()).strip()


def _relation(facts: CardFacts) -> str:
    manifest = facts.manifest
    if manifest and manifest.get("precision") in ("int8", "int4"):
        return "quantized"
    return RELATIONS.get(facts.kind, "finetune")


def _tags(facts: CardFacts) -> list[str]:
    own = {
        Kind.BUNDLE: ["onnx", "onnxruntime", "onnxruntime-genai", "steering"],
        Kind.CHECKPOINT: ["task-arithmetic", "model-edit"],
        Kind.ADAPTER: ["lora", "task-arithmetic", "model-edit"],
        Kind.REWARD: ["reward-model", "preference-conditioned"],
    }.get(facts.kind, ["not-for-all-audiences", "harmful-weights"])
    return ["prosocial", "safety", *own]


def _configs(decoding: DecodingConfig | None) -> list[dict[str, Any]]:
    """Return what each safety config lets through; what it tells the model stays in `decoding.json`."""
    if decoding is None:
        return []
    default = decoding.harm_threshold
    return [
        {"name": name, "allowed": one.allowed, "threshold": default if one.threshold is None else one.threshold}
        for name, one in decoding.safety_configs.items()
    ]


def _systems(document: Mapping[str, Any] | None) -> list[str]:
    return list(document["comparison"]["systems"]) if document else []


def _scales(decimals: Sequence[str]) -> str:
    return decimals[0] if len(set(decimals)) == 1 else f"{len(set(decimals))} scales, {decimals[0]} to {decimals[-1]}"


def _share(interval: Mapping[str, Any]) -> str:
    return f"{_percent(interval['estimate'])} % ({_percent(interval['low'])} to {_percent(interval['high'])})"


def _points(interval: Mapping[str, Any]) -> str:
    return f"{_percent(interval['estimate'], '+')} points ({_percent(interval['low'], '+')} to " + (
        f"{_percent(interval['high'], '+')})"
    )


def _percent(value: float | None, sign: str = "") -> str:
    return "?" if value is None else f"{100 * value:{sign}.1f}"


def plain(value: object) -> str:
    """Return a text that cannot become markup of the card: one line, without pipes, brackets, quotes and back-ticks.

    Example:
        >>> plain("leaks | <img src=x> [here](http://x)")
        'leaks img src=x here (http://x)'
    """
    return " ".join(re.sub(r"[|<>\[\]`\\\r\n]+", " ", str(value)).split())


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; what comes from a record goes through `plain`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template(TEMPLATE)
