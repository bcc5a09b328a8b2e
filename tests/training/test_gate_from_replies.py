"""A gate from labelled replies: what it is trained on, on-policy replies, and what cannot be trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Judgement, Message
from prosocial.steering.gate import HarmGate
from prosocial.training.gate import (
    GateSettings,
    LabelledReply,
    OnPolicyPrompts,
    TrainedGate,
    train_gate_on_replies,
)
from prosocial.training.gate.harmful_model import load_harmful
from prosocial.training.reply_sampling import ReplySampling

from .reward_helpers import USEFUL, WARM, make_model, make_tokenizer

PROMPT = ({"role": "user", "content": "how do i improve my garden plan?"},)
REPLIES = [LabelledReply(PROMPT, USEFUL, frozenset({"drugs"})), LabelledReply(PROMPT, WARM, frozenset())] * 4
FEW: dict[str, Any] = {"rank": 4, "steps": 20, "batch_size": 32}


class Judge:
    """Calls every other reply harmful, or gives no verdict."""

    name, version = "every other", "1"

    def __init__(self, verdicts: Sequence[Judgement]) -> None:
        self._verdicts, self._n = verdicts, -1

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        self._n += 1
        return self._verdicts[self._n % len(self._verdicts)]


MIXED = (Judgement(categories=frozenset({"drugs"})), Judgement(), Judgement(error="it timed out"))


def train(folder: Path, replies: Sequence[LabelledReply] = REPLIES, **given: Any) -> TrainedGate:
    tokenizer = make_tokenizer(folder)
    settings = GateSettings.model_validate(FEW | given.pop("settings", {}))
    categories = given.pop("categories", ["violence", "drugs"])
    model = make_model(tokenizer)
    return train_gate_on_replies(
        model, replies, tokenizer=tokenizer, categories=categories, settings=settings, plausible_k=16, **given
    )


def on_policy(*verdicts: Judgement, n: int = 6) -> OnPolicyPrompts:
    return OnPolicyPrompts([PROMPT] * n, Judge(verdicts), ReplySampling(max_new_tokens=4))


def test_the_last_replies_are_for_the_scaling_alone(tmp_path: Path) -> None:
    whole, scaled = (train(tmp_path, settings={"held_out_share": share}) for share in (0.0, 0.25))
    first = train(tmp_path, REPLIES[:6], settings={"held_out_share": 0.0})
    assert whole.scaling is None and scaled.scaling is not None
    assert scaled.n_positions == first.n_positions < whole.n_positions and scaled.n_replies == 8
    assert torch.equal(scaled.gate.U, first.gate.U)  # the scaling leaves U alone


def test_replies_that_leak_or_were_nearly_stopped_are_trained_on(tmp_path: Path) -> None:
    plain = train(tmp_path)
    settings = {"on_policy": {"count": 6, "threshold": 1.0, "near": 0.0}}
    every = train(tmp_path, settings=settings, on_policy=on_policy(*MIXED))
    assert (every.n_on_policy, every.n_unjudged) == (4, 2)  # near 0: a harmless reply counts too
    assert every.n_positions > plain.n_positions and not torch.equal(every.gate.U, plain.gate.U)
    assert "with 4 on-policy replies, 2 more could not be judged" in every.summary


def test_prompts_without_a_count_draw_nothing(tmp_path: Path) -> None:
    plain, given = train(tmp_path), train(tmp_path, on_policy=on_policy(*MIXED))
    assert torch.equal(plain.gate.M, given.gate.M) and given.n_on_policy == 0


def test_on_policy_replies_that_are_all_stopped_leave_the_training_as_it_is(tmp_path: Path) -> None:
    settings = {"on_policy": {"count": 6, "threshold": 1e-6}}
    assert train(tmp_path, settings=settings, on_policy=on_policy(*MIXED)).n_on_policy == 0


def test_the_record_is_saved_beside_the_gate(tmp_path: Path) -> None:
    trained = train(tmp_path)
    trained.save(tmp_path / "gate", checkpoint_fingerprint="f")
    loaded = HarmGate.load(tmp_path / "gate")
    assert loaded.extra == trained.to_json() and torch.equal(loaded.M, trained.gate.M)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"replies": [REPLIES[0]] * 4}, "the first 4 of 4 replies, those to train on, .* found 4 harmful of 4"),
        ({"replies": [*REPLIES[1::2], *REPLIES[::2]], "settings": {"held_out_share": 0.5}}, "found 0 harmful of 4"),
        ({"settings": {"on_policy": {"count": 2}}}, "on_policy.count is 2: give prompts and a judge"),
        (
            {"settings": {"on_policy": {"count": 2, "threshold": 1.0}}, "on_policy": on_policy(MIXED[2])},
            "of 2 replies the judge should label some, it labelled none: .*it timed out",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_one_clear_line(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path, **given)


def test_a_category_that_the_gate_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown harm category 'drugs': known are violence"):
        train(tmp_path, categories=["violence"])


def test_a_harmful_checkpoint_needs_no_base_and_is_a_signal(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    make_model(tokenizer, seed=1).save_pretrained(tmp_path / "harmful")
    plain, taught = (train(tmp_path, harmful=model) for model in (None, load_harmful(tmp_path / "harmful", base=None)))
    assert not torch.equal(plain.gate.U, taught.gate.U)
