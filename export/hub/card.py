"""The model card of an artefact, rendered from its records."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, UndefinedError

from prosocial.core.errors import ArtefactError
from prosocial.core.files import delete_asides, read_json, written_aside
from prosocial.steering.decoding.config import DecodingConfig

from ..bundle_files.card import STEERED
from ..bundle_files.precision import PRECISIONS
from .facts import CardFacts, comparison_rows
from .kinds import REWARD_CONFIG, Kind
from .metadata import card_metadata

CARD_FILE = "README.md"
TEMPLATE = "card.md.j2"


def render_card(facts: CardFacts) -> str:
    """Return the card as Markdown with the Hub's YAML metadata; text from records is escaped by `plain`.

    Raises:
        ArtefactError: a record of the folder is missing or invalid.
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
        precision=PRECISIONS.get(manifest.get("precision", "fp32"), "") if manifest else None,
        decoding=decoding,
        configs=_configs(decoding),
        attributes=read_json(facts.folder / REWARD_CONFIG)["attributes"] if facts.kind is Kind.REWARD else (),
        raw_clients=STEERED.split("```python")[0].strip(),
    )
    try:
        text = _template().render(given)
    except UndefinedError as missing:
        raise ArtefactError(
            f"the report on {facts.name} should have all its entries: {missing.message}; write it again"
        ) from None
    return f"---\n{card_metadata(facts, rows)}\n---\n\n{text}"


def write_card(folder: Path, text: str) -> None:
    """Write a card as `README.md` into a folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    delete_asides(folder, CARD_FILE)
    with written_aside(folder / CARD_FILE) as aside:  # the rename replaces a link, and does not follow it
        aside.write_text(text, encoding="utf-8")


def _configs(decoding: DecodingConfig | None) -> list[dict[str, Any]]:
    """Return name, allowed categories and threshold of each safety config; the texts stay in `decoding.json`."""
    if decoding is None:
        return []
    default = decoding.harm_threshold
    return [
        {"name": name, "allowed": one.allowed, "threshold": default if one.threshold is None else one.threshold}
        for name, one in decoding.safety_configs.items()
    ]


def _systems(document: Mapping[str, Any] | None) -> list[str]:
    return list(document["comparison"]["systems"]) if document else []


def plain(value: object) -> str:
    """Return a text as one line without control characters and characters that would be markup in the card.

    Examples:
        >>> plain("leaks | <img src=x> [here](http://x)")
        'leaks img src=x here (http://x)'
    """
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return " ".join(re.sub(r"[|<>\[\]`\\*]+", " ", text).split())


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # the output is Markdown; text from records goes through `plain`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template(TEMPLATE)
