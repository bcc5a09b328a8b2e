"""The shared start of a batch is read once, and the replies are those of rows that stand alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prosocial.export import Bundle
from prosocial.export.runtime.session import GraphSession
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.decoding.prefix import TOKENS_PER_RUN, PrefixCache, shared_prefix
from prosocial.steering.torch_engine import SteeredEngine

TOLERANCE = 1e-4
SYSTEM = " ".join(f"word{3 * index % 150}" for index in range(60))


@given(st.integers(1, 6), st.integers(1, 90), st.data())
def test_what_is_shared_is_the_same_in_all_rows(n_rows: int, n_tokens: int, data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ids = np.tile(rng.integers(0, 5, n_tokens), (n_rows, 1))
    at = data.draw(st.integers(0, n_tokens))
    ids[:, at:] = rng.integers(0, 5, (n_rows, n_tokens - at))
    n_shared = shared_prefix(ids)
    assert (ids[:, :n_shared] == ids[0, :n_shared]).all() and n_shared < n_tokens
    if n_shared:
        assert (n_rows - 1) * n_shared >= TOKENS_PER_RUN
    else:
        same = min(int((ids == ids[0]).all(0).cumprod().sum()), n_tokens - 1)
        assert (n_rows - 1) * same < n_rows * TOKENS_PER_RUN


def conversations(n: int, *, differ_in: int = 4) -> list[Any]:
    """Conversations with one long system prompt and user messages of equal length."""
    words = [" ".join(f"word{7 * index + place}" for place in range(differ_in)) for index in range(n)]
    return [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}] for text in words]


def decisions(engine: Any, ids: NDArray[np.int64], rows: list[int]) -> list[Any]:
    """The decisions after a prefill and two steps, each row with its own controls."""
    asked = [Steering(preference={"empathy": 1.0}, reward_scale=row, harm_threshold=0.9) for row in rows]
    stream = engine.prefill(ids, control_arrays(engine.config, asked), capacity=ids.shape[1] + 3)
    found = [stream.decision]
    for step in range(2):
        stream.step(ids[:, step])
        found.append(stream.decision)
    return found


@pytest.fixture(scope="module", params=["ort", "portable", "torch"])
def engine(request: pytest.FixtureRequest, pico: Any) -> Any:
    if request.param == "torch":
        return SteeredEngine(pico.steered())
    name = "llama_bundle" if request.param == "ort" else "portable_bundle"
    return Bundle.open(request.getfixturevalue(name), threads=1).engine


@pytest.mark.parametrize("n_rest", [1, 7])
def test_rows_that_share_their_start_decide_as_they_do_alone(engine: Any, n_rest: int) -> None:
    rng = np.random.default_rng(0)
    ids = np.concatenate([np.tile(rng.integers(5, 200, 60), (4, 1)), rng.integers(5, 200, (4, n_rest))], 1)
    assert shared_prefix(ids) == 60
    together = decisions(engine, ids, [0, 1, 2, 3])
    for row in range(4):
        for batched, alone in zip(together, decisions(engine, ids[[row]], [row]), strict=True):
            np.testing.assert_allclose(batched.logits[row], alone.logits[0], rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(batched.risk[row], alone.risk[0], rtol=0, atol=TOLERANCE)
            assert batched.safe_set_size[row] == alone.safe_set_size[0] > 0


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each run read."""
    found: list[int] = []
    run = GraphSession.run

    def counted(session: Any, ids: Any, *others: Any) -> Any:
        found.append(ids.size)
        return run(session, ids, *others)

    monkeypatch.setattr(GraphSession, "run", counted)
    return found


def test_what_is_shared_is_read_once(llama_bundle: Path, n_read: list[int]) -> None:
    bundle = Bundle.open(llama_bundle, threads=1)
    talks = conversations(6)
    n_tokens = len(bundle.tokenizer.encode_chat(talks[0]))
    together = bundle.generate(talks, max_new_tokens=2)
    assert n_tokens < sum(n_read) < 2 * n_tokens
    assert [reply.token_ids for reply in together] == [
        bundle.generate([talk], max_new_tokens=2)[0].token_ids for talk in talks
    ]


@given(st.lists(st.integers(0, 1), max_size=60), st.lists(st.lists(st.integers(0, 1), max_size=60), min_size=1))
def test_what_is_known_is_the_same_in_all_rows(before: list[int], rows: list[list[int]]) -> None:
    width = 1 + max(map(len, rows))
    ids = np.array([[*row, *[0] * (width - len(row))] for row in rows])
    n_known = PrefixCache(np.array(before, np.int64), []).known(ids)
    assert all(row[:n_known] == before[:n_known] for row in ids.tolist()) and n_known < width
    assert n_known == 0 or n_known >= TOKENS_PER_RUN


@pytest.mark.parametrize("fixture", ["llama_bundle", "portable_bundle"])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_prompt_that_begins_like_the_last_one_is_read_from_where_they_part(
    request: pytest.FixtureRequest, n_read: list[int], fixture: str, n_rows: int
) -> None:
    folder = request.getfixturevalue(fixture)
    cached, fresh = (Bundle.open(folder, threads=1, prefix_cache=keeps).engine for keeps in (True, False))
    rng = np.random.default_rng(1)
    talk = np.tile(rng.integers(5, 200, 90), (n_rows, 1))
    for n_tokens, n_new in ((50, 50), (70, 20), (60, 3), (90, 30)):  # it grows, is taken back, and goes on
        talk[:, n_tokens - 3 : n_tokens] = rng.integers(5, 200, (n_rows, 3))
        n_read.clear()
        found, n_cached = decisions(cached, talk[:, :n_tokens], list(range(n_rows))), sum(n_read)
        expected = decisions(fresh, talk[:, :n_tokens], list(range(n_rows)))
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(left.logits, right.logits, rtol=0, atol=TOLERANCE)
            np.testing.assert_array_equal(left.safe_set_size, right.safe_set_size)
        if n_tokens > 50:
            n_known = 47 if n_rows > 1 else n_tokens - n_new
            assert n_cached == n_rows * (n_tokens - n_known + 2)
