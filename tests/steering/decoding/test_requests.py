"""Requests: each stands alone in its batch, and one that cannot be answered does not take the others with it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.export import Bundle
from prosocial.export.runtime.session import session_options
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.sampling import Sampling

from ..engines import TableEngine, start_of, user

NEAR_TIE = 1e-4
BAD: list[tuple[Any, Steering, str]] = [
    ([], Steering(), "hold some text"),
    (user(""), Steering(), "hold some text"),
    (user("word1 " * 200), Steering(), "shorten"),
    (user("word1"), Steering(safety_config="nothing"), "unknown safety config"),
    (user("word1"), Steering(preference={"kindness": 1.0}), "unknown attribute"),
    (user("word1"), Steering(preference={"empathy": -1.0}), "at least 0"),
    (user("word1"), Steering(allowed=["drugs"]), "ceiling"),
    (user("word1"), Steering(allowed=["theft"]), "unknown harm category"),
    (user("word1"), Steering(harm_threshold=0.95), "ceiling"),
    (user("word1"), Steering(reward_scale=-1.0), "reward_scale"),
    ([{"role": "tool", "content": "word1"}], Steering(), "role"),
    (user("word1 \ud800"), Steering(), "valid Unicode"),
    ([{"role": "user", "content": None}], Steering(), "role"),
    ([None], Steering(), "role"),
    (None, Steering(), "list of messages"),
    ("word1", Steering(), "list of messages"),
    (user("word1" * 2_000_000), Steering(), "characters"),
    (user("word1") * 2000, Steering(), "messages"),
    (user("word1"), Steering(preference={"empathy": "1"}), "numbers and names"),  # type: ignore[dict-item]
    (user("word1"), Steering(harm_threshold="0.1"), "numbers and names"),  # type: ignore[arg-type]
]


@pytest.fixture(scope="module")
def bundle(llama_bundle: Path) -> Bundle:
    return Bundle.open(llama_bundle, threads=1)


def test_a_bad_request_does_not_take_the_others_with_it(pico: Any, bundle: Bundle) -> None:
    good = pico.conversations(6)
    expected = bundle.generate(good, temperature=0.8, row_keys=list("abcdef"))
    conversations: list[Any] = [*good[:3], *(bad for bad, _, _ in BAD), *good[3:]]
    steering = [*[Steering()] * 3, *(asked for _, asked, _ in BAD), *[Steering()] * 3]
    keys = [*"abc", *(f"bad {index}" for index in range(len(BAD))), *"def"]
    replies = bundle.generate(conversations, steering=steering, temperature=0.8, row_keys=keys, on_error="reply")
    assert replies[:3] + replies[-3:] == expected
    for reply, (_, _, match) in zip(replies[3:-3], BAD, strict=True):
        assert reply.finish == "error" and match in str(reply.error) and "\n" not in str(reply.error)
        assert reply.text == "" and reply.token_ids == ()
    for conversation, asked, match in BAD:
        with pytest.raises(InputError, match=match):
            bundle.generate([good[0], conversation], steering=[Steering(), asked])


def test_a_row_of_a_broken_model_is_an_error_of_its_own(pico: Any, bundle: Bundle) -> None:
    tokenizer = bundle.tokenizer
    start = start_of(tokenizer, user("word5"))
    engine = TableEngine({start: {20: float("nan")}}, None)
    (reply,) = generate(engine, tokenizer, [user("word5")], on_error="reply")
    assert reply.finish == "error" and "finite logit" in str(reply.error)


def test_a_token_that_the_model_does_not_know_is_an_error_of_its_own(bundle: Bundle) -> None:
    known = max(bundle.tokenizer.encode_chat(user("word5")))
    engine = TableEngine({}, None, vocabulary_size=known + 1)
    first, second = generate(engine, bundle.tokenizer, [user("word5"), user("word150")], on_error="reply")
    assert first.finish == "end" and second.finish == "error"
    assert f"below {known + 1}" in str(second.error)


def test_what_to_do_with_errors_is_one_of_two(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="raise or reply"):
        bundle.generate([user("word1")], on_error="ignore")


def test_log_probabilities_are_those_of_the_rule(pico: Any, bundle: Bundle) -> None:
    conversations = pico.conversations(3)
    sampling = Sampling(temperature=1.3, top_k=5, repetition_penalty=1.2)
    for reply, conversation in zip(
        bundle.generate(conversations, sampling=sampling, log_probabilities=True), conversations, strict=True
    ):
        ids = bundle.tokenizer.encode_chat(conversation)
        assert reply.log_probabilities is not None and len(reply.log_probabilities) == len(reply.token_ids) > 3
        for token, found in zip(reply.token_ids, reply.log_probabilities, strict=True):
            logits = last_logits(bundle, ids).astype(np.float64)
            assert found == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-4)
            ids.append(token)
    assert bundle.generate(conversations[:1])[0].log_probabilities is None


def test_log_probabilities_follow_a_rollback(pico: Any, llama_folder: Path) -> None:
    tokenizer = ChatTokenizer(llama_folder)
    start = start_of(tokenizer, user("word5"))
    table: dict[int, dict[int, float]] = {start: {20: 1.0, 30: 0.0}, 20: {21: 0.0}, 21: {}, 30: {31: 0.0, 32: 0.0}}
    engine = TableEngine(table, pico.config())
    (reply,) = generate(engine, tokenizer, [user("word5")], log_probabilities=True)
    assert reply.token_ids == (30, 31)
    assert reply.log_probabilities == pytest.approx([-np.log1p(np.e), -np.log(2)])


def mixed_requests(n: int) -> tuple[list[Any], list[Steering]]:
    """Requests of many lengths, each with its own preference, config, threshold and scale."""
    rng = np.random.default_rng(0)
    conversations, steering = [], []
    for index in range(n):
        words = " ".join(f"word{token}" for token in rng.integers(0, 150, rng.integers(1, 30)))
        conversations.append(user(words))
        share = float(rng.random())
        config = {"safety_config": "fiction"} if index % 5 == 0 else {"harm_threshold": float(rng.uniform(0.4, 0.9))}
        weights = {"empathy": share, "helpfulness": 1 - share}
        steering.append(Steering(preference=weights, reward_scale=float(3 * rng.random()), **config))  # type: ignore[arg-type]
    return conversations, steering


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_200_mixed_requests_in_ragged_batches_equal_one_by_one(bundle: Bundle, temperature: float) -> None:
    conversations, steering = mixed_requests(200)
    keys = [f"request {index}" for index in range(200)]
    together = bundle.generate(conversations, steering=steering, temperature=temperature, row_keys=keys)
    n_near_ties = 0
    for index, (reply, conversation, asked, key) in enumerate(
        zip(together, conversations, steering, keys, strict=True)
    ):
        options: Any = {"temperature": temperature, "row_keys": [key]}
        (alone,) = bundle.generate([conversation], steering=asked, **options)
        if (reply.token_ids, reply.events, reply.finish) != (alone.token_ids, alone.events, alone.finish):
            assert temperature == 0.0 and smallest_gap(bundle, conversation, asked, reply, alone) < NEAR_TIE, index
            n_near_ties += 1
    assert n_near_ties <= 2
    assert {"length", "fallback"} <= {reply.finish for reply in together}
    assert sum(bool(reply.events) and reply.finish != "fallback" for reply in together) > 0


def smallest_gap(bundle: Bundle, conversation: Any, asked: Steering, first: Reply, second: Reply) -> float:
    """Return how far apart the two best tokens are where two replies part."""
    n_same = next(
        (at for at, (a, b) in enumerate(zip(first.token_ids, second.token_ids, strict=False)) if a != b),
        min(len(first.token_ids), len(second.token_ids)),
    )
    ids = [*bundle.tokenizer.encode_chat(conversation), *first.token_ids[:n_same]]
    best = np.sort(last_logits(bundle, ids, asked))[-2:]
    return float(best[1] - best[0])


def last_logits(bundle: Bundle, ids: list[int], asked: Steering | None = None) -> Any:
    from prosocial.steering.decoding.controls import control_arrays

    assert bundle.config is not None
    controls = control_arrays(bundle.config, [asked or Steering()])
    return bundle.engine.prefill(np.array([ids]), controls, capacity=len(ids)).decision.logits[0]


def test_threads_follow_the_cores_that_the_process_may_use() -> None:
    assert session_options({})["intra_op_num_threads"] == len(os.sched_getaffinity(0))
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from prosocial.export.runtime.session import session_options\n"
        "print(session_options({})['intra_op_num_threads'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_an_option_that_does_not_exist_is_refused_with_those_that_do(pico: Any, llama_folder: Path) -> None:
    engine, tokenizer = TableEngine({}, pico.config()), ChatTokenizer(llama_folder)
    with pytest.raises(UnknownNameError, match=r"max_new_token.*did you mean max_new_tokens"):
        generate(engine, tokenizer, [user("word5")], max_new_token=3)  # type: ignore[call-arg]
