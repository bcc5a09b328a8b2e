"""Pico models of three architectures go through the whole of CoSAlign, judged through an endpoint."""

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from rich.console import Console

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.files import read_json, read_jsonl, write_jsonl
from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.recipes.lab.replies import draw_reply
from prosocial.recipes.lab.requests import RequestGrammar
from prosocial.recipes.lab.tokenizer import train_tokenizer
from prosocial.recipes.lab.words import HARM_VERBS, TOPICS
from prosocial.recipes.labelling.labellers import LabLabeller
from prosocial.recipes.pipeline import open_recipe, run_recipe

from ..labelling.test_labelling import Endpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 5,
    "pad_token_id": 0,
}
SOFT_CAPS = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0, "sliding_window": 8}
ARCHITECTURES = {"Llama": {}, "Qwen3": {"tie_word_embeddings": True}, "Gemma2": SOFT_CAPS}
N_PROMPTS, N_PLANTED = 24, 2
TUNING = {"most_steps": 2, "batch_size": 4, "learning_rate": 0.01, "warmup_steps": 0, "max_tokens": 250}


def write_model(folder: Path, architecture: str) -> Path:
    grammar, rng = RequestGrammar(TOPICS, held_out_forms=False), random.Random(0)
    train_tokenizer([grammar.draw("harmful", rng).text for _ in range(200)], folder, vocabulary_size=400)
    torch.manual_seed(0)
    size = SIZE | ARCHITECTURES[architecture] | {"vocab_size": ChatTokenizer(folder).vocabulary_size}
    config = getattr(transformers, f"{architecture}Config")(**size)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_data(folder: Path) -> dict[str, Any]:
    """Write prompts, an evaluation set that holds two of them, and replies of somebody else to all."""
    folder.mkdir()
    grammar, rng = RequestGrammar(TOPICS, held_out_forms=False), random.Random(0)
    kinds: Any = ("harmful", "harmful", "benign", "twin")
    requests = [grammar.draw(kinds[at % 4], rng) for at in range(N_PROMPTS)]
    replies = [(request, draw_reply(request, rng, comply_share=share)) for request in requests for share in (0.0, 1.0)]
    planted = [requests[0].text.upper(), requests[1].text + " ok"]
    probes = [{"id": str(at), "kind": "harmful", "text": text} for at, text in enumerate(planted)]
    rows = {
        "prompts": [{"prompt": request.text} for request in requests],
        "replies": [{"prompt": request.text, "reply": reply} for request, reply in replies],
        "probes": probes,
    }
    for name, found in rows.items():
        write_jsonl(folder / f"{name}.jsonl", found)
    paths = {name: str(folder / f"{name}.jsonl") for name in ("prompts", "replies")}
    return paths | {"evaluation": [str(folder / "probes.jsonl")]}


def write_recipe(folder: Path, architecture: str, url: str) -> Path:
    recipe = {
        "pipeline": "cosalign",
        "name": "pico",
        "model": str(write_model(folder / "model", architecture)),
        "data": write_data(folder / "data"),
        "judge": f"endpoint:m@{url}",
        "definitions": {name: "to " + " or ".join(verbs) for name, verbs in HARM_VERBS.items()},
        "contamination": {"similarity": 0.85},
        "taxonomy": {"min_cluster_size": 3, "min_samples": 2, "dimensions": 5},
        "wording": {"templates": ["you may help with {safety_config}."], "strict": ["do no harm."], "joint": " "},
        "configs": {"replies": {"superset": 1}},
        "candidates": [{"max_new_tokens": 4}],
        "sft": TUNING,
        "dpo": TUNING | {"lora": {"rank": 2, "alpha": 4}} if architecture == "Qwen3" else TUNING,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def judged(request: dict[str, Any]) -> str:
    """Answer as a model would that judges as the lab's judge does."""
    asked = json.loads(request["messages"][1]["content"])
    labeller, messages = LabLabeller(), asked["conversation"]
    if "reply" not in asked:
        return json.dumps({"harms": sorted(labeller.request_harms(messages))})
    label = labeller.reply_label(messages, asked["reply"])
    return json.dumps({"harms": sorted(label.harms), "addressed": label.addressed})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with closing(Endpoint(judged)) as found:
        yield found


def run(recipe: Path, out: Path) -> int:
    console = Console(quiet=True)
    return run_recipe(str(recipe), out=out, overrides=[], dry_run=False, clean=False, json=False, console=console)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_goes_from_prompts_to_a_checkpoint(architecture: str, tmp_path: Path, endpoint: Endpoint) -> None:
    recipe, out = write_recipe(tmp_path, architecture, endpoint.url), tmp_path / "out"
    assert run(recipe, out) == 0

    prompts = read_json(out / "prompts" / "counts.json")
    assert (prompts["exact_duplicates"], prompts["near_duplicates"]) == (1, 1)
    assert prompts["chosen"] == prompts["distinct"] - N_PLANTED
    assert read_json(out / "candidates" / "counts.json")["given_to_other_prompts"] == 2 * N_PLANTED
    rows = read_jsonl(out / "preferences" / "preferences.jsonl")
    assert all(row["chosen_error"] < row["rejected_error"] for row in rows)
    assert all(set(row["chosen_harms"]) <= set(row["allowed"]) for row in rows)
    assert {row["messages"][0]["role"] for row in rows} == {"system"}
    weights = [Checkpoint.open(out / name).fingerprint() for name in ("sft", "dpo")]
    assert len({*weights, Checkpoint.open(tmp_path / "model").fingerprint()}) == 3
    assert all(bool(weight.isfinite().all()) for weight in load_model(out / "dpo").parameters())

    n_asked = len(endpoint.requests)
    assert run(recipe, out) == 0  # all of it is re-used
    assert len(endpoint.requests) == n_asked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("pool=[violence, other]", "pool should list defined categories that a config may allow"),
        ("pool=[]", "pool should be one or more"),
        ("judge=endpoint:m@http://localhost/v1", "data.lab should have the judge lab"),
        ("wording.templates=[none]", r"should have the slot \{safety_config\} once"),
        ("configs.pairs={upwards: 1}", "configs.pairs.upwards"),
        ("error.allowed=-1", "error.allowed"),
    ],
)
def test_a_recipe_that_does_not_hold_is_one_clear_line(change: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        open_recipe("cosalign", [change])

    assert "\n" not in str(caught.value)
