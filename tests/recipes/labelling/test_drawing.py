"""Replies that something is trained on are drawn row by row: what is there is kept, and the results are the same."""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message
from prosocial.editing.checkpoints import load_model
from prosocial.recipes.labelling import drawing
from prosocial.recipes.labelling.drawing import Drawn, EndpointSampler, LocalSampler, draw_replies
from prosocial.steering.decoding import batch_size
from prosocial.training.reply_sampling import ReplySampling

from ..chat_endpoint import Endpoint
from ..pico_recipe import REQUESTS, write_model

PROMPTS: list[list[Message]] = [
    [{"role": "user", "content": f"{request} please." * (1 + number % 2)}]
    for number, request in enumerate(REQUESTS * 3)
]
SAMPLING = ReplySampling(temperature=1.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> LocalSampler:
    return LocalSampler(write_model(tmp_path_factory.mktemp("model")), load_model, SAMPLING)


class Stopping:
    """A sampler that is interrupted after some replies."""

    def __init__(self, sampler: LocalSampler, n: int) -> None:
        self.sampler, self.n = sampler, n

    def draw(self, conversations: Sequence[Sequence[Message]], indices: Sequence[int], *, seed: int) -> Iterable[Drawn]:
        for number, drawn in enumerate(self.sampler.draw(conversations, indices, seed=seed)):
            if number == self.n:
                raise KeyboardInterrupt
            yield drawn


def n_rows(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_an_interrupted_draw_goes_on_to_the_same_replies(here: LocalSampler, tmp_path: Path) -> None:
    whole = draw_replies(here, PROMPTS, path=tmp_path / "whole.jsonl", seed=3)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        draw_replies(Stopping(here, 5), PROMPTS, path=path, seed=3)
    assert n_rows(path) == 5
    with path.open("ab") as stream:
        stream.write(b'{"index": 11, "rep')  # as a killed process leaves it

    assert draw_replies(here, PROMPTS, path=path, seed=3) == whole
    assert len(set(whole)) > len(PROMPTS) // 2
    before = path.stat().st_mtime_ns
    nothing = LocalSampler(tmp_path / "no-model", load_model, SAMPLING)
    assert draw_replies(nothing, PROMPTS, path=path, seed=3) == whole  # no model is loaded for what is there
    assert path.stat().st_mtime_ns == before


def test_replies_do_not_depend_on_how_many_are_drawn_at_once(
    here: LocalSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = draw_replies(here, PROMPTS, path=tmp_path / "many.jsonl", seed=0)
    monkeypatch.setattr(batch_size, "CACHE_AND_LOGITS_BYTES", 1)
    assert draw_replies(here, PROMPTS, path=tmp_path / "one.jsonl", seed=0) == many
    assert draw_replies(here, PROMPTS, path=tmp_path / "other.jsonl", seed=1) != many


class Server:
    """A server that answers with the request's seed, and is gone after some answers."""

    def __init__(self, most: int) -> None:
        self.most, self._lock = most, threading.Lock()
        self.endpoint = Endpoint(self._answer)
        self.sampler = EndpointSampler(ChatEndpoint(self.endpoint.url, "edited"), SAMPLING)

    def _answer(self, request: dict[str, Any]) -> str | int:
        with self._lock:
            self.most -= 1
            return 503 if self.most < 0 else f"{request['seed']} {request['messages'][-1]['content']}"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(drawing, "WAIT_SECONDS", 0.0)
    opened: list[Server] = []

    def start(most: int) -> Server:
        opened.append(Server(most))
        return opened[-1]

    yield start
    for server in opened:
        server.endpoint.close()


def test_a_server_draws_each_reply_once_with_a_seed_of_its_own(serve: Any, tmp_path: Path) -> None:
    server = serve(1000)
    replies = draw_replies(server.sampler, PROMPTS, path=tmp_path / "rows.jsonl", seed=2)

    seeds, texts = zip(*(reply.split(" ", 1) for reply in replies), strict=True)
    assert list(texts) == [prompt[-1]["content"] for prompt in PROMPTS]
    assert len(set(seeds)) == len(PROMPTS) == len(server.endpoint.requests)
    asked = server.endpoint.requests[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("edited", 1.0, 8)


def test_a_server_that_goes_away_loses_no_row(serve: Any, tmp_path: Path) -> None:
    gone, path = serve(5), tmp_path / "rows.jsonl"
    with pytest.raises(InputError, match=r"should answer as edited: it answered 503; serve the model there and run"):
        draw_replies(gone.sampler, PROMPTS, path=path, seed=2)
    kept = n_rows(path)
    assert 1 <= kept <= 5

    back = serve(1000)
    replies = draw_replies(back.sampler, PROMPTS, path=path, seed=2)
    assert len(back.endpoint.requests) == len(PROMPTS) - kept
    assert replies == draw_replies(serve(1000).sampler, PROMPTS, path=tmp_path / "whole.jsonl", seed=2)


def test_a_server_that_is_not_there_is_asked_for_one_reply_only(serve: Any, tmp_path: Path) -> None:
    server = serve(0)
    with pytest.raises(InputError, match="should answer as edited"):
        draw_replies(server.sampler, PROMPTS, path=tmp_path / "rows.jsonl", seed=0)
    assert {json.dumps(request["messages"]) for request in server.endpoint.requests} == {json.dumps(PROMPTS[0])}
