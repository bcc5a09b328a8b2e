"""Prompts are compared with transformers at export and with the record at every opening; the card says the rest."""

import json
import shutil
from pathlib import Path

import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, write_json
from prosocial.export import Bundle, write_manifest
from prosocial.export.bundle_files.card import bundle_card, prompt_notes
from prosocial.export.bundle_files.prompt_record import PROMPT_RECORD, check_prompts, record_prompts

from ...core.chat_families import FAMILIES

GOLDEN = Path(__file__).parents[2] / "golden" / "0.1.0" / "bundle"
NAMES = ("llama-2", "llama-3.1", "gemma", "granite", "vicuna", "deepseek-r1")


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_day_holds_on_every_other(tmp_path: Path, name: str) -> None:
    tokenizer = ChatTokenizer(FAMILIES[name].write(tmp_path))
    record = record_prompts(tmp_path, tokenizer)
    check_prompts(tokenizer, json.loads(json.dumps(record)), source="x")
    assert len(record["prompts"]) == (3 if FAMILIES[name].refuses_system else 5)


def test_another_tokenizer_differs_from_the_record(tmp_path: Path) -> None:
    record = record_prompts(tmp_path, ChatTokenizer(FAMILIES["qwen-2"].write(tmp_path)))
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(ArtefactError, match="should encode prompt 1 of 5 as transformers does, but from position"):
        check_prompts(ChatTokenizer(tmp_path), record, source="the bundle")


def test_a_folder_whose_ids_differ_is_not_exported(tmp_path: Path) -> None:
    """The template's control token goes through a filter that loses where it comes from, and a caller types another."""
    FAMILIES["qwen-2"].write(tmp_path)
    ours = ChatTokenizer(tmp_path)
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text().replace("m['content']", "m['content'] | reverse"))
    with pytest.raises(ArtefactError, match="as transformers does"):
        record_prompts(tmp_path, ours)


@pytest.mark.parametrize("change", ["ids", "form"])
def test_a_bundle_with_other_prompts_is_not_opened(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    record = record_prompts(folder, ChatTokenizer(folder))
    facts = {key: value for key, value in read_json(folder / "manifest.json").items() if key not in ("files", "schema")}

    def remade() -> Bundle:
        write_json(folder / PROMPT_RECORD, record)
        write_manifest(folder, facts=facts)
        return Bundle.open(folder, threads=1)

    remade()
    if change == "ids":
        record["prompts"][0]["token_ids"].append(1)
    else:
        record["prompts"] = [1]
    with pytest.raises(ArtefactError, match="prompt"):
        remade()


def test_the_card_says_what_a_template_lacks(tmp_path: Path) -> None:
    def card(name: str) -> str:
        tokenizer = ChatTokenizer(FAMILIES[name].write(tmp_path / name))
        return bundle_card(kind="plain", profile="ort", precision="fp32", notes=prompt_notes(tokenizer))

    assert "no place for a system message" in card("gemma") and "role markers" not in card("gemma")
    assert "`ASSISTANT:`, `USER:`" in card("vicuna") and "no place" not in card("vicuna")
    assert "role markers" not in card("llama-3") and "no place" not in card("llama-3")
