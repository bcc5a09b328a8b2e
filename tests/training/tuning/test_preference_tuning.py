"""Tuning on replies and on pairs: the loss leaves the prompt out, a killed training goes on, NaN is never kept."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.core.batches import EncodedReply, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import DivergenceError, InputError
from prosocial.editing.checkpoints import load_model
from prosocial.training.tuning import (
    EncodedPreference,
    LoraShape,
    PreferenceTuning,
    Tuning,
    tune_on_preferences,
    tune_on_replies,
)
from prosocial.training.tuning.trainer import STATE_FILE, newest_checkpoint

from ..reward_helpers import USEFUL, WARM, make_model, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FAST: dict[str, Any] = {
    "batch_size": 2,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "optimizer": "adamw_torch",
    "max_gradient_norm": 1.0,
}
MESSAGES = [{"role": "system", "content": "do no harm."}, {"role": "user", "content": "how do i start?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "base"
    make_model(make_tokenizer(folder)).save_pretrained(folder)
    return folder


def pairs(base: Path) -> list[EncodedPreference]:
    tokenizer = ChatTokenizer(base)
    warm, useful = (encode_reply(tokenizer, MESSAGES, reply) for reply in (WARM, USEFUL))
    return [EncodedPreference(warm, useful)] * 8


def log_probability(folder: Path, item: EncodedReply) -> float:
    """Return the log-probability of a reply, summed over its tokens alone."""
    ids = torch.tensor([item.prompt_ids + item.reply_ids])
    with torch.no_grad():
        found = load_model(folder)(input_ids=ids).logits[0, :-1].log_softmax(-1)
    each = found.gather(1, ids[0, 1:, None])[len(item.prompt_ids) - 1 :]
    return float(each.sum())


def margin(folder: Path, pair: EncodedPreference) -> float:
    return log_probability(folder, pair.chosen) - log_probability(folder, pair.rejected)


def test_the_supervised_loss_is_that_of_the_reply_alone(base: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(base)
    item = encode_reply(tokenizer, MESSAGES, WARM)
    loss = tune_on_replies(base, [item] * 2, out=tmp_path / "out", tuning=Tuning(**FAST, most_steps=1), seed=0)

    assert loss == pytest.approx(-log_probability(base, item) / len(item.reply_ids), rel=1e-4)
    assert tokenizer.decode(item.prompt_ids).count("do no harm.") == 1  # the config is in the prompt
    assert log_probability(tmp_path / "out", item) > log_probability(base, item)


@pytest.mark.parametrize("lora", [None, LoraShape(rank=4, alpha=8)], ids=["full", "lora"])
def test_preferences_start_from_their_reference_and_widen_the_margin(
    base: Path, tmp_path: Path, lora: LoraShape | None
) -> None:
    def tuned(steps: int) -> tuple[float, Path]:
        out = tmp_path / f"out-{steps}"
        tuning = PreferenceTuning(**FAST, lora=lora, most_steps=steps)
        return tune_on_preferences(base, pairs(base), out=out, tuning=tuning, seed=0), out

    first, _ = tuned(1)
    _, out = tuned(6)
    assert first == pytest.approx(math.log(2), abs=1e-4)  # DPO's loss where the policy is the reference
    assert margin(out, pairs(base)[0]) > margin(base, pairs(base)[0]) + 0.5
    assert {path.suffix for path in out.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert ChatTokenizer(out).encode_chat(MESSAGES) == ChatTokenizer(base).encode_chat(MESSAGES)


class KilledError(Exception):
    """Stands for the end of a process."""


def test_a_killed_training_ends_in_the_same_weights(base: Path, tmp_path: Path) -> None:
    tuning = PreferenceTuning(**FAST, most_steps=6, checkpoint_every=2)
    taken: list[int] = []

    def tune(out: str, *, killed_at: int | None = None) -> None:
        def on_step() -> None:
            taken.append(len(taken))
            if len(taken) == killed_at:
                raise KilledError

        scratch = tmp_path / ("whole" if out == "whole-out" else "killed")
        tune_on_preferences(
            base, pairs(base), out=tmp_path / out, tuning=tuning, seed=0, scratch=scratch, on_step=on_step
        )

    tune("whole-out")
    taken.clear()
    with pytest.raises(KilledError):
        tune("killed-out", killed_at=5)
    assert not (tmp_path / "killed-out").exists()
    state = tmp_path / "killed" / "checkpoint-4" / STATE_FILE
    written = state.stat().st_mtime_ns
    taken.clear()
    tune("killed-out")

    assert state.stat().st_mtime_ns == written  # no step before was taken again
    assert len(taken) == 6  # those of before are told of, too
    whole, resumed = (load_file(tmp_path / out / "model.safetensors") for out in ("whole-out", "killed-out"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_no_pickle_is_written_and_none_is_read(base: Path, tmp_path: Path) -> None:
    """A pickle runs code when it is read; transformers keeps four of them in each checkpoint."""
    tuning = Tuning(**FAST, most_steps=4, checkpoint_every=2)
    scratch, steps = tmp_path / "scratch", iter(range(1, 4))

    def on_step() -> None:
        if next(steps) == 3:
            raise KilledError

    def tune(**more: Any) -> None:
        replies = [pair.chosen for pair in pairs(base)]
        tune_on_replies(base, replies, out=tmp_path / "out", tuning=tuning, seed=0, scratch=scratch, **more)

    with pytest.raises(KilledError):
        tune(on_step=on_step)
    last = newest_checkpoint(scratch)
    assert last is not None
    assert {path.suffix for path in last.iterdir()} == {".safetensors", ".json"}
    (last / "optimizer.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(InputError, match=r"checkpoint-2 should hold no pickle, found optimizer\.pt"):
        tune()
    (last / "optimizer.pt").unlink()
    state = (last / "optimizer.safetensors").read_bytes()
    (last / "optimizer.safetensors").write_bytes(state[:-9])
    with pytest.raises(InputError, match=r"optimizer\.safetensors"):
        tune()
    (last / "optimizer.safetensors").write_bytes(state)
    tune()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_checkpoints_of_another_training_are_set_aside_with_one_line(base: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    def tune(**changes: Any) -> None:
        tuning = Tuning(**FAST | changes, most_steps=1)
        replies, out, scratch = [pair.chosen for pair in pairs(base)], tmp_path / str(changes), tmp_path / "scratch"
        tune_on_replies(base, replies, out=out, tuning=tuning, seed=0, scratch=scratch, on_note=notes.append)

    tune()
    assert notes == []
    for number, rate in enumerate((2e-2, 3e-2), start=1):
        tune(learning_rate=rate)
        assert notes[number - 1 :] == [
            "checkpoints of a training with other settings or data were set aside: "
            f"{tmp_path / 'scratch'}.set-aside-{number}"
        ]
        assert newest_checkpoint(tmp_path / f"scratch.set-aside-{number}") is not None


def test_a_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(base: Path, tmp_path: Path) -> None:
    """The first step of the warm-up moves nothing; the second makes every weight infinite."""
    tuning = Tuning(
        **FAST | {"warmup_steps": 1, "learning_rate": 3e38, "optimizer": "rmsprop"}, most_steps=4, checkpoint_every=1
    )
    replies = [pair.chosen for pair in pairs(base)]
    with pytest.raises(DivergenceError, match=r"checkpoint-1 is kept") as caught:
        tune_on_replies(base, replies, out=tmp_path / "out", tuning=tuning, seed=0, scratch=tmp_path / "scratch")

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    kept = newest_checkpoint(tmp_path / "scratch")
    assert kept is not None
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "model.safetensors").values())


def test_a_base_that_is_not_finite_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"should give finite logits, found others: NaN or infinity in model\.norm"):
        tune_on_preferences(
            broken, pairs(base), out=tmp_path / "out", tuning=PreferenceTuning(**FAST, most_steps=2), seed=0
        )


def test_a_pair_over_two_prompts_is_refused(base: Path) -> None:
    one = pairs(base)[0].chosen
    with pytest.raises(InputError, match="should have the same prompt"):
        EncodedPreference(one, EncodedReply(one.prompt_ids[1:], one.reply_ids))
