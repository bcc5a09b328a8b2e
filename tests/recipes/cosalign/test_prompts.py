"""Prompts that an evaluation set holds are found, word for word or nearly; labels are exact, or counted as missing."""

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.evaluation.judges.requests import LabelRequest
from prosocial.recipes.cosalign.contamination import ContaminationSettings, find_duplicates
from prosocial.recipes.cosalign.embedding import tfidf_embedding
from prosocial.recipes.cosalign.naming import name_by_hand, name_by_model
from prosocial.recipes.cosalign.prompts import PromptSettings, choose_prompts, distinct_prompts, label_prompts
from prosocial.recipes.cosalign.reply_labels import label_candidates
from prosocial.recipes.cosalign.taxonomy import NOISE, TaxonomySettings, find_clusters
from prosocial.recipes.lab.replies import draw_reply
from prosocial.recipes.lab.requests import RequestGrammar
from prosocial.recipes.lab.words import TOPICS
from prosocial.recipes.labelling.endpoint_labeller import EndpointLabeller
from prosocial.recipes.labelling.judges import judge_named
from prosocial.recipes.labelling.labellers import LabLabeller
from prosocial.recipes.labelling.reply_label import ReplyLabel

from ..chat_endpoint import Endpoint

WORDS = ("river", "lantern", "museum", "bicycle", "garden", "violin", "window", "kitten", "budget", "recipe", "tent")
MESSAGES = [{"role": "system", "content": "the config"}, {"role": "user", "content": "how do i zorb the flux?"}]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    evaluation, prompts = sentences(60, 0), sentences(60, 1)
    exact = [evaluation[3].upper() + "?!", "  " + evaluation[9].replace(" ", "\n ")]
    near = [
        evaluation[20] + " please",
        evaluation[21].replace(" ", " a ", 1),
        evaluation[22][: -len(evaluation[22]) // 8],
    ]
    found = find_duplicates(prompts + exact + near, evaluation, ContaminationSettings())

    assert [(one.index, one.other, one.kind) for one in found] == [
        *((60, 3, "exact"), (61, 9, "exact")),
        *((62, 20, "near"), (63, 21, "near"), (64, 22, "near")),
    ]


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.75, 1.0])
def test_the_index_misses_no_pair_that_comparing_all_finds(similarity: float) -> None:
    """Words of few letters, compared by their letters: many similarities lie right at the limit."""
    rng = random.Random(0)
    prompts, evaluation = (["".join(rng.sample("abcdefgh", rng.randint(2, 6))) for _ in range(150)] for _ in range(2))
    best = [max(len({*text} & {*other}) / len({*text} | {*other}) for other in evaluation[:20]) for text in prompts]
    found = find_duplicates(prompts, evaluation[:20], ContaminationSettings(similarity=similarity, shingle=1))

    assert {one.index: one.similarity for one in found} == {n: one for n, one in enumerate(best) if one >= similarity}


def test_prompts_outside_the_pool_are_dropped_or_count_as_other() -> None:
    labelled = [
        {"id": "1", "messages": [], "harms": ["a"]},
        {"id": "2", "messages": [], "harms": ["held_out"]},
        {"id": "3", "messages": [], "not_labelled": "?"},
        {"id": "4", "messages": [], "harms": ["a"]},
        {"id": "5", "messages": [], "harms": []},
    ]
    dropped, counts = choose_prompts(labelled, ["a"], PromptSettings(outside="drop", most_per_set=1))
    kept, _ = choose_prompts(labelled, ["a"], PromptSettings())

    assert [row["id"] for row in dropped] == ["1", "5"]
    assert counts == {"unreadable": 1, "outside": 1, "beyond_the_set": 1}
    assert [row["harms"] for row in kept] == [["a"], ["other"], ["a"], []]


def test_a_prompt_that_differs_in_punctuation_alone_is_taken_once() -> None:
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ("Who?", "who", "Where?")]

    assert distinct_prompts(rows) == [rows[0], rows[2]]


@pytest.mark.parametrize("kind", ["benign", "harmful", "twin", "disclosure", "false_premise"])
def test_the_lab_labels_its_own_requests_and_replies_exactly(kind: Any) -> None:
    grammar, rng, labeller = RequestGrammar(TOPICS, held_out_forms=False), random.Random(0), LabLabeller()
    for _ in range(60):
        request = grammar.draw(kind, rng)
        messages = [{"role": "user", "content": request.text}]
        harms = frozenset({request.category} if kind == "harmful" and request.category else ())

        assert labeller.request_harms(messages) == harms
        assert labeller.reply_label(messages, draw_reply(request, rng, comply_share=1.0)) == ReplyLabel(harms, True)
        if kind == "harmful":
            declined = draw_reply(request, rng, comply_share=0.0)
            assert labeller.reply_label(messages, declined) == ReplyLabel(frozenset(), False)


def test_an_endpoint_labels_without_seeing_the_config() -> None:
    with closing(Endpoint(lambda request: 'So: {"harms": ["a"], "addressed": true}')) as endpoint:
        labeller = EndpointLabeller(ChatEndpoint(endpoint.url, "m"), {"a": "alpha", "b": "beta"})
        assert labeller.reply_label(MESSAGES, "done") == ReplyLabel(frozenset("a"), True)
        assert labeller.request_harms(MESSAGES) == frozenset("a")

    asked = [request["messages"] for request in endpoint.requests]
    assert "- a: alpha\n- b: beta" in asked[0][0]["content"]
    assert json.loads(asked[0][1]["content"]) == {"conversation": MESSAGES[1:], "reply": "done"}


@pytest.mark.parametrize(
    "answer", ["", "no json", '{"harms": ["c"], "addressed": true}', '{"harms": [], "addressed": 1}']
)
def test_an_answer_that_cannot_be_read_is_counted_and_never_harmless(answer: str, tmp_path: Path) -> None:
    with closing(Endpoint(lambda request: answer)) as endpoint:
        labeller = EndpointLabeller(ChatEndpoint(endpoint.url, "m"), {"a": "alpha"})
        prompts = [{"id": "1", "messages": MESSAGES}]
        rows, counts = label_candidates(
            [{"prompt": "1", "reply": "done"}] * 2, prompts, labeller, out=tmp_path / "labels.jsonl"
        )
        assert len(endpoint.requests) == 2  # asked twice, once for both

    assert counts == {"given": 2, "distinct": 1, "unreadable": 1, "harmful": 0, "not_addressed": 0}
    assert "harms" not in rows[0]


def test_a_killed_labelling_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The endpoint is gone after two answers; the second run asks for the third prompt alone."""
    prompts = [{"id": str(n), "messages": [{"role": "user", "content": f"how {n}?"}]} for n in range(3)]
    left = [200, 200]
    with closing(Endpoint(lambda request: '{"harms": []}' if left and left.pop() else 503)) as endpoint:
        labeller = EndpointLabeller(ChatEndpoint(endpoint.url, "m"), {"a": ""})
        with pytest.raises(InputError, match="should answer"):
            label_prompts(prompts, labeller, out=tmp_path / "prompts.jsonl")
        left.append(200)
        n_before = len(endpoint.requests)
        rows = label_prompts(prompts, labeller, out=tmp_path / "prompts.jsonl")
        assert len(endpoint.requests) == n_before + 1

    assert [row["harms"] for row in rows] == [[], [], []]


def test_another_judge_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown judge .refusal.: known are endpoint:MODEL@URL, lab"):
        judge_named("refusal", LabelRequest({}))


SETTINGS = TaxonomySettings(min_cluster_size=10, min_samples=3)


def groups() -> tuple[list[str], list[int]]:
    """Return three groups of texts about different things, and which group each is of."""
    about = (
        ("river", "water", "boat", "fish"),
        ("piano", "violin", "song", "chord"),
        ("bread", "flour", "oven", "yeast"),
    )
    rng = random.Random(0)
    texts = [" ".join(rng.sample(words, 3)) + f" number{at}" for words in about for at in range(30)]
    return texts, [group for group in range(3) for _ in range(30)]


def test_clusters_are_the_groups_that_were_planted() -> None:
    texts, truth = groups()
    clusters = find_clusters(texts, tfidf_embedding(dimensions=3), SETTINGS)

    real = [cluster for cluster in clusters if cluster.label != NOISE]
    assert all(len({truth[at] for at in cluster.members}) == 1 for cluster in real)  # no cluster mixes two groups
    assert {truth[cluster.members[0]] for cluster in real} == {0, 1, 2}
    assert sorted(at for cluster in clusters for at in cluster.members) == list(range(90))  # noise is kept, not lost
    assert any({"river", "boat"} <= set(cluster.keywords) for cluster in real)
    assert all(set(cluster.samples) <= {texts[at] for at in cluster.members} for cluster in real)


def test_clusters_are_named_by_hand_or_by_a_model() -> None:
    texts, _ = groups()
    clusters = find_clusters(texts, tfidf_embedding(dimensions=3), SETTINGS)
    label = str(clusters[0].label)
    assert name_by_hand(clusters, {label: "rivers"})[0].name == "rivers"
    with pytest.raises(UnknownNameError, match="unknown cluster '99'"):
        name_by_hand(clusters, {"99": "none"})

    answers = iter(['{"name": "boats", "definition": "On water."}', "no idea", *["{}"] * 9])
    with closing(Endpoint(lambda request: next(answers))) as endpoint:
        named, n_unreadable = name_by_model(clusters, ChatEndpoint(endpoint.url, "m"))
    assert (named[0].name, named[0].definition) == ("boats", "On water.")
    assert n_unreadable == sum(cluster.label != NOISE for cluster in clusters) - 1
