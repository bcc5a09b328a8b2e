"""Replies for training are kept while they are drawn, and belong to their model, prompts and settings."""

from pathlib import Path
from typing import Any

import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.steering.decoding.controls import Steering
from prosocial.training import drawn_replies
from prosocial.training.drawn_replies import draw_replies
from prosocial.training.reply_sampling import ReplySampling

SAMPLING = ReplySampling(max_new_tokens=4)


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> ChatTokenizer:
    return ChatTokenizer(llama_folder)


def test_a_killed_drawing_goes_on_where_it_was(
    pico: Any, tokenizer: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered, prompts = pico.steered(), pico.conversations(10)
    expected = draw_replies(steered, prompts, tokenizer, sampling=SAMPLING, seed=3)
    monkeypatch.setattr(drawn_replies, "replies_at_once", lambda config, n_tokens: 2)
    monkeypatch.setattr(drawn_replies, "CHUNK_BATCHES", 2)
    own, drawn = type(steered).generate, list[int]()

    def counting(self: Any, conversations: Any, *rest: Any, **options: Any) -> Any:
        if stop and len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(conversations))
        return own(self, conversations, *rest, **options)

    monkeypatch.setattr(type(steered), "generate", counting)
    given: dict[str, Any] = {"sampling": SAMPLING, "folder": tmp_path}
    stop = True
    with pytest.raises(KeyboardInterrupt):
        draw_replies(steered, prompts, tokenizer, seed=3, **given)
    stop = False
    assert draw_replies(steered, prompts, tokenizer, seed=3, **given) == expected
    assert drawn == [4, 4, 2]
    draw_replies(steered, prompts, tokenizer, seed=3, **given)
    assert drawn == [4, 4, 2]  # nothing is left to draw
    other = [Steering(preference={"empathy": 1.0})] * len(prompts)
    for seed, steering in ((4, None), (4, other)):
        drawn.clear()
        assert draw_replies(steered, prompts, tokenizer, seed=seed, steering=steering, **given) != expected
        assert drawn == [4, 4, 2]
