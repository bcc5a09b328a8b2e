"""Sampling: closed tokens stay closed, neutral settings change nothing, and no row feels the others."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.noise import GumbelNoise
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.sampling import Sampler, Sampling, shape_logits

SIZE = 24
Floats = NDArray[np.float32]
finite = st.floats(-30, 30, width=32)
rows = arrays(np.float32, SIZE, elements=finite)
samplings = st.builds(
    Sampling,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 3.0)),
    top_k=st.integers(0, SIZE + 3),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
    repetition_penalty=st.floats(0.2, 5.0),
    seed=st.integers(0, 5),
)


@st.composite
def gated_rows(draw: Any) -> Floats:
    """Logits with some tokens closed, at least one open."""
    logits, is_open = draw(rows), draw(arrays(np.bool_, SIZE).filter(np.any))
    return np.where(is_open, logits, -np.inf).astype(np.float32)


@given(gated_rows(), samplings, st.lists(st.integers(0, SIZE - 1), max_size=8))
def test_a_closed_token_is_never_drawn(logits: Floats, sampling: Sampling, history: list[int]) -> None:
    shaped = shape_logits(logits, sampling, history)
    assert np.isneginf(shaped[np.isneginf(logits)]).all() and np.isfinite(shaped).any()
    assert not np.isnan(shaped).any() and not np.isposinf(shaped).any()
    token = Sampler(sampling, ["a"]).choose(logits[None], [0], [history])[0]
    assert np.isfinite(shaped[token]) and np.isfinite(logits[token])


@given(gated_rows(), st.lists(st.integers(0, SIZE - 1), max_size=8))
def test_neutral_settings_change_nothing(logits: Floats, history: list[int]) -> None:
    np.testing.assert_array_equal(shape_logits(logits, Sampling(temperature=1.0), history), logits)
    np.testing.assert_array_equal(shape_logits(logits, Sampling(), history), logits)
    assert Sampler(Sampling(), ["a"]).choose(logits[None], [0])[0] == logits.argmax()


@given(st.lists(gated_rows(), min_size=1, max_size=6), samplings)
def test_a_draw_does_not_depend_on_the_batch(batch: list[Floats], sampling: Sampling) -> None:
    keys = [f"row {index}" for index in range(len(batch))]
    histories = [[index, 2 * index] for index in range(len(batch))]
    together = Sampler(sampling, keys).choose(np.stack(batch), range(len(batch)), histories)
    alone = [
        Sampler(sampling, [key]).choose(row[None], [0], [history])[0]
        for key, row, history in zip(keys, batch, histories, strict=True)
    ]
    assert together.tolist() == alone


@given(rows, st.integers(1, SIZE), st.floats(0.05, 0.95), st.floats(0.0, 1.0))
def test_what_is_kept_is_what_the_definitions_say(logits: Floats, k: int, top_p: float, min_p: float) -> None:
    def kept(**settings: Any) -> set[int]:
        return set(np.flatnonzero(np.isfinite(shape_logits(logits, Sampling(temperature=1.0, **settings)))).tolist())

    probability = np.exp(logits.astype(np.float64) - logits.max())
    probability /= probability.sum()
    by_k = kept(top_k=k)
    assert len(by_k) == k and min(logits[list(by_k)]) >= max([-99, *np.delete(logits, list(by_k))])
    by_p = kept(top_p=top_p)
    mass = probability[list(by_p)].sum()
    assert mass >= top_p - 1e-9 and mass - probability[list(by_p)].min() < top_p + 1e-9
    assert kept(min_p=min_p) == set(np.flatnonzero(probability >= min_p * probability.max() * (1 - 1e-12)).tolist())


def test_the_draw_follows_the_kept_part_of_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.7), [str(index) for index in range(4000)])
    drawn = sampler.choose(np.tile(logits, (4000, 1)), range(4000))
    shares = np.bincount(drawn, minlength=4) / 4000
    assert abs(shares[0] - 0.5 / 0.8) < 0.03 and shares[2] == shares[3] == 0


def test_a_penalty_makes_used_tokens_less_likely() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.2], np.float32)
    shaped = shape_logits(logits, Sampling(repetition_penalty=2.0), [0, 2])
    assert shaped.tolist() == [1.0, 1.5, -2.0, np.float32(-1.2)]
    assert Sampler(Sampling(repetition_penalty=2.0), ["a"]).choose(logits[None], [0], [[0, 2]])[0] == 1


def test_replies_with_every_setting_do_not_depend_on_the_batch(pico: Any, llama_folder: Any) -> None:
    steered, tokenizer, conversations = pico.steered(), ChatTokenizer(llama_folder), pico.conversations(7)
    sampling = Sampling(temperature=1.5, top_k=12, top_p=0.95, min_p=0.01, repetition_penalty=1.3, seed=2)
    found = [
        [reply.token_ids for reply in steered.generate(conversations, tokenizer, sampling=sampling, batch_size=n)]
        for n in (1, 3, 7)
    ]
    assert found[0] == found[1] == found[2]
    plain = steered.generate(conversations, tokenizer, temperature=1.5, seed=2)
    assert [reply.token_ids for reply in plain] != found[0]


def test_the_config_holds_the_default(pico: Any, llama_folder: Any) -> None:
    tokenizer, conversations = ChatTokenizer(llama_folder), pico.conversations(3)
    settings = {"temperature": 1.2, "top_p": 0.9, "seed": 3}
    by_default = pico.steered(sampling=settings).generate(conversations, tokenizer)
    asked = pico.steered().generate(conversations, tokenizer, sampling=Sampling(**settings))
    assert [reply.token_ids for reply in by_default] == [reply.token_ids for reply in asked]
    greedy = pico.steered(sampling=settings).generate(conversations, tokenizer, temperature=0.0)
    assert [reply.token_ids for reply in greedy] != [reply.token_ids for reply in by_default]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 1e-9}, "temperature: .*at least"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_setting_out_of_range_is_named(pico: Any, change: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Sampling().changed(**change)
    data = pico.config().model_dump(by_alias=True)
    with pytest.raises(ArtefactError, match=f"sampling.{match.split()[0]}"):
        DecodingConfig.parse(data | {"sampling": change}, source="it")


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40, unique=True), st.integers(1, 3))
def test_noise_at_some_places_is_that_of_all(places: list[int], n_draws: int) -> None:
    size, few, every = 3001, GumbelNoise(0, ["a", "b"]), GumbelNoise(0, ["a", "b"])
    at = np.sort(np.array(places))
    for _ in range(n_draws):  # the stream goes on behind all elements, whichever were wanted
        np.testing.assert_allclose(few.draw_at(size, 1, at), every.draw(size, [1])[0, at], rtol=1e-6)
