"""Guided decoding: equal to the formula without a cache, row by row, and nothing at weight 0."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.evaluation.guided import (
    GuidedEngine,
    GuidedProcessor,
    contrast,
    dexperts,
    genarm,
    parm,
    require_same_vocabulary,
    safe_infer,
    safety_prompt,
    shared_rows,
    union_penalty,
    weighted_product,
)
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.decoding.loop import generate
from prosocial.steering.torch_engine import PlainEngine

from .guided_world import (
    KINDS,
    N_NEW,
    NAMES,
    PREFERENCES,
    Forward,
    World,
    generated,
    greedy_without_cache,
    make_reward,
    plain,
    prompts,
    under,
)


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, pico: Any) -> World:
    return World(pico, request.param)


def cases(
    world: World, mask: Tensor | None, rows: slice = slice(None)
) -> dict[str, tuple[GuidedProcessor, Callable[[int], Forward]]]:
    """Return every form as a processor, and as the formula of a row."""
    base, (first, second), reward = plain(world.base), world.others, world.reward
    asked, weights = PREFERENCES[rows], torch.tensor([[0.4, 0.0], [0.3, 0.9], [0.7, 0.2]])

    def ratio(row: int) -> Forward:
        expert, other = under(reward, PREFERENCES[row]), under(reward, None)
        return lambda ids: base(ids) + 0.7 * (expert(ids).log_softmax(-1) - other(ids).log_softmax(-1))

    def product_of(row: int) -> Forward:
        return lambda ids: (
            base(ids).log_softmax(-1)
            + weights[row, 0] * plain(first)(ids).log_softmax(-1)
            + weights[row, 1] * plain(second)(ids).log_softmax(-1)
        )

    def union(ids: Tensor) -> Tensor:
        own, unsafe = base(ids).log_softmax(-1), plain(world.unsafe)(ids).log_softmax(-1)
        return (own - 0.8 * torch.maximum(own, unsafe)) / 0.2  # as the paper's library computes it

    return {
        "parm": (
            parm(reward, asked, weight=0.7, attention_mask=mask),
            lambda row: (
                lambda ids: base(ids).log_softmax(-1) + 0.7 * under(reward, PREFERENCES[row])(ids).log_softmax(-1)
            ),
        ),
        "log-ratio": (parm(reward, asked, weight=0.7, log_ratio=True, attention_mask=mask), ratio),
        "genarm": (genarm([first, second], weights[rows], attention_mask=mask), product_of),
        "dexperts": (
            dexperts(first, second, weight=0.6, attention_mask=mask),
            lambda row: lambda ids: base(ids) + 0.6 * (plain(first)(ids) - plain(second)(ids)),
        ),
        "safe_infer": (safe_infer(world.unsafe, strength=0.8, attention_mask=mask), lambda row: union),
    }


FORMS = ["parm", "log-ratio", "genarm", "dexperts", "safe_infer"]


@pytest.mark.parametrize("form", FORMS)
def test_a_padded_batch_with_caches_is_the_formula_row_by_row(world: World, form: str) -> None:
    alone, ids, mask = prompts()
    processor, formula = cases(world, mask)[form]
    found = generated(world.base, processor, ids, mask)
    assert found == [greedy_without_cache(formula(row), alone[row]) for row in range(3)]
    assert found != generated(world.base, None, ids, mask)  # the guides do say something


@pytest.mark.parametrize("form", FORMS)
def test_a_row_alone_gets_what_it_gets_in_a_padded_batch(world: World, form: str) -> None:
    alone, ids, mask = prompts()
    together = generated(world.base, cases(world, mask)[form][0], ids, mask)
    for row in range(3):
        processor = cases(world, None, slice(row, row + 1))[form][0]
        assert generated(world.base, processor, alone[row], torch.ones_like(alone[row])) == [together[row]]


@pytest.mark.parametrize("do_sample", [False, True])
def test_weight_0_is_plain_generation_token_for_token(world: World, do_sample: bool) -> None:
    _, ids, mask = prompts()
    first, second = world.others

    def tokens(processor: GuidedProcessor | None) -> list[list[int]]:
        torch.manual_seed(4)
        return generated(world.base, processor, ids, mask, do_sample=do_sample, top_k=50)

    plainly = tokens(None)
    for processor in (
        parm(world.reward, PREFERENCES, weight=0.0, attention_mask=mask),
        parm(world.reward, PREFERENCES, weight=0.0, log_ratio=True, attention_mask=mask),
        genarm([first, second], [0.0, 0.0], attention_mask=mask),
        dexperts(first, second, weight=0.0, attention_mask=mask),
        safe_infer(first, strength=0.0, attention_mask=mask),
        safety_prompt(world.base, (ids, mask), weight=0.0, attention_mask=mask),
    ):
        assert tokens(processor) == plainly


def test_weight_0_in_one_row_leaves_that_row_alone(world: World) -> None:
    _, ids, mask = prompts()
    processor = parm(world.reward, PREFERENCES, weight=torch.tensor([0.0, 2.0, 0.0]), attention_mask=mask)
    found, plainly = generated(world.base, processor, ids, mask), generated(world.base, None, ids, mask)
    assert found[0] == plainly[0] and found[2] == plainly[2] and found[1] != plainly[1]


def test_left_padding_moves_no_absolute_position(pico: Any) -> None:
    base, expert, other = (pico.model("gpt2", seed=seed) for seed in range(3))
    alone, ids, mask = prompts()

    def formula(ids: Tensor) -> Tensor:
        return plain(base)(ids) + 0.6 * (plain(expert)(ids) - plain(other)(ids))

    found = generated(base, dexperts(expert, other, weight=0.6, attention_mask=mask), ids, mask)
    assert found == [greedy_without_cache(formula, row) for row in alone]


def test_a_safety_prompt_is_read_by_the_base_itself(world: World) -> None:
    alone, ids, mask = prompts()
    rule = torch.tensor([[150, 151, 152]])
    with_rule = [torch.cat([rule, row], 1) for row in alone]
    longer = torch.cat([torch.nn.functional.pad(row, (10 - row.shape[1], 0), value=1) for row in with_rule])
    longer_mask = torch.cat(
        [torch.nn.functional.pad(torch.ones_like(row), (10 - row.shape[1], 0)) for row in with_rule]
    )
    processor = safety_prompt(world.base, (longer, longer_mask), weight=1.5, attention_mask=mask)
    base = plain(world.base)

    def formula(ids: Tensor) -> Tensor:
        return base(ids) + 1.5 * (base(torch.cat([rule, ids], 1)) - base(ids))

    expected = [greedy_without_cache(formula, row) for row in alone]
    assert generated(world.base, processor, ids, mask) == expected


@pytest.mark.parametrize("log_ratio", [False, True])
def test_one_batch_of_twice_the_rows_is_two_models(world: World, log_ratio: bool) -> None:
    _, ids, mask = prompts()
    processor = parm(world.reward, PREFERENCES, weight=0.7, log_ratio=log_ratio, attention_mask=mask)
    apart = generated(world.base, processor, ids, mask)
    with shared_rows(world.reward, PREFERENCES, weight=0.7, log_ratio=log_ratio) as model:
        assert generated(model, None, ids, mask) == apart
    with shared_rows(world.reward, PREFERENCES, weight=0.0, log_ratio=log_ratio) as model:
        assert generated(model, None, ids, mask) == generated(world.base, None, ids, mask)
    assert generated(world.reward.model, None, ids, mask) == generated(world.base, None, ids, mask)  # hooks are gone


def test_shared_rows_need_one_preference_per_row(world: World) -> None:
    _, ids, mask = prompts()
    with (
        shared_rows(world.reward, PREFERENCES[:2]) as model,
        pytest.raises(InputError, match="one preference per row, found 2 for 3"),
    ):
        generated(model, None, ids, mask)


def test_beams_that_change_places_are_read_again(pico: Any) -> None:
    base, expert, other = (pico.model("llama", seed=seed) for seed in range(3))
    alone, _, _ = prompts()

    class Uncached(GuidedProcessor):
        def __init__(self) -> None:
            super().__init__([], lambda scores, found: scores)

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            read = [model(input_ids=input_ids, use_cache=False).logits[:, -1].float() for model in (expert, other)]
            return contrast(scores.float(), *read, torch.tensor([0.6]))

    found = generated(base, dexperts(expert, other, weight=0.6), alone[1], torch.ones_like(alone[1]), num_beams=3)
    assert found == generated(base, Uncached(), alone[1], torch.ones_like(alone[1]), num_beams=3)


def test_a_processor_is_for_one_batch(pico: Any) -> None:
    base, expert, other = (pico.model("llama", seed=seed) for seed in range(3))
    _, ids, mask = prompts()
    processor = dexperts(expert, other, attention_mask=mask)
    generated(base, processor, ids, mask)
    with pytest.raises(InputError, match="make a new one"):
        generated(base, processor, ids, mask)


def test_vocabularies_that_differ_are_refused(pico: Any, tmp_path: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    base = pico.model("llama")
    small = LlamaForCausalLM(
        LlamaConfig(vocab_size=150, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    )
    _, ids, mask = prompts()
    with pytest.raises(InputError, match="logits of 200 and of 150 tokens"):
        generated(base, safe_infer(small, attention_mask=mask), ids, mask)
    for name in ("one", "two"):
        pico.write_checkpoint("llama", tmp_path / name)
    path = tmp_path / "two" / "tokenizer.json"
    path.write_text(path.read_text().replace('"word7"', '"other7"'))
    one, two = ChatTokenizer(tmp_path / "one"), ChatTokenizer(tmp_path / "two")
    require_same_vocabulary(one, one)
    with pytest.raises(InputError, match="'other7' as None and"):
        require_same_vocabulary(one, two)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda w: parm(w.reward, torch.tensor([[0.5, 0.6]])), "add up to 1"),
        (lambda w: parm(w.reward, torch.tensor([[1.5, -0.5]])), "add up to 1"),
        (lambda w: parm(w.reward, torch.tensor([[1.0, 0.0, 0.0]])), "empathy"),
        (lambda w: parm(w.reward, torch.tensor([[torch.nan, 1.0]])), "add up to 1"),
        (lambda w: parm(w.reward, PREFERENCES, weight=-1.0), "at least 0"),
        (lambda w: genarm(w.others, [1.0]), "one weight per model"),
    ],
)
def test_what_does_not_hold_is_refused(pico: Any, make: Callable[[World], GuidedProcessor], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make(World(pico, "llama"))


def test_a_strength_of_1_is_refused() -> None:
    with pytest.raises(InputError, match="below 1"):
        union_penalty(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([1.0]))


def test_a_union_leaves_tokens_that_the_unsafe_model_does_not_prefer_their_odds() -> None:
    base, unsafe = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 6.0]])
    found = union_penalty(base, unsafe, torch.tensor([0.99])).softmax(-1)[0]
    assert found[0] / found[1] == pytest.approx(float(torch.e), rel=1e-4) and found[2] < 1e-30


def test_what_was_ruled_out_stays_so() -> None:
    base = torch.tensor([[0.0, -torch.inf, 1.0]])
    other = torch.tensor([[1.0, 2.0, 3.0]])
    weight = torch.tensor([0.5])
    for found in (
        weighted_product(base, [other], weight[:, None]),
        contrast(base, other, other.flip(-1), weight),
        union_penalty(base, other, weight),
    ):
        assert found[0, 1] == -torch.inf and torch.isfinite(found[0, [0, 2]]).all()


class TestEngine:
    """The same in our decoding loop."""

    config = DecodingConfig(attributes=list(NAMES), categories=["other"], plausible_k=200, beta=0.5)

    def test_the_teacher_is_the_log_ratio(self, world: World) -> None:
        alone, _, _ = prompts()
        engine = GuidedEngine.teacher(world.reward, self.config)
        for row, preference in enumerate(PREFERENCES):
            controls = Steering(preference=dict(zip(NAMES, preference.tolist(), strict=True)))
            found = self.tokens(engine, alone[row], controls)
            base, adapted = under(world.reward, None), under(world.reward, preference)
            expected = greedy_without_cache(
                lambda ids, base=base, adapted=adapted: (
                    base(ids) + 2.0 * (adapted(ids).log_softmax(-1) - base(ids).log_softmax(-1))
                ),
                alone[row],
            )
            assert found == expected

    @pytest.mark.parametrize("log_ratio", [False, True])
    def test_separate_models_are_the_formula(self, pico: Any, log_ratio: bool) -> None:
        base = pico.model("llama")
        rewards = [make_reward(pico.model("llama"), (name,), seed=seed) for seed, name in enumerate(NAMES)]
        engine = GuidedEngine.separate(base, rewards, self.config, log_ratio=log_ratio)
        alone, _, _ = prompts()
        found = self.tokens(engine, alone[0], Steering(preference={"empathy": 0.25, "helpfulness": 0.75}))
        ones = torch.ones(1)

        def formula(ids: Tensor) -> Tensor:
            own = plain(base)(ids).log_softmax(-1)
            words = [under(reward, ones)(ids).log_softmax(-1) - (own if log_ratio else 0) for reward in rewards]
            return own + 2.0 * (0.25 * words[0] + 0.75 * words[1])

        assert found == greedy_without_cache(formula, alone[0])

    def test_only_plausible_tokens_stay(self, world: World) -> None:
        narrow = self.config.model_copy(update={"plausible_k": 3})
        stream = GuidedEngine.teacher(world.reward, narrow).prefill(np.array([[5, 6, 7]]), None, capacity=9)
        kept = np.flatnonzero(np.isfinite(stream.decision.logits[0]))
        own = under(world.reward, None)(torch.tensor([[5, 6, 7]])).topk(3).indices
        assert sorted(kept) == sorted(own.tolist()) and stream.decision.safe_set_size.tolist() == [3]

    @pytest.mark.parametrize("form", ["teacher", "separate"])
    def test_rows_that_go_on_keep_their_preference_and_their_text(self, pico: Any, form: str) -> None:
        base = pico.model("llama")
        if form == "teacher":
            engine = GuidedEngine.teacher(make_reward(base), self.config)
        else:
            rewards = [make_reward(pico.model("llama"), (name,), seed=seed) for seed, name in enumerate(NAMES)]
            engine = GuidedEngine.separate(base, rewards, self.config, log_ratio=True)
        ids = np.array([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
        asked = [Steering(preference=dict(zip(NAMES, row.tolist(), strict=True))) for row in PREFERENCES]
        controls = control_arrays(self.config, asked)
        stream = engine.prefill(ids, controls, capacity=9)
        stream.keep(np.array([2, 0]))
        stream.step(np.array([20, 21]))
        for at, (row, token) in enumerate(((2, 20), (0, 21))):
            alone = engine.prefill(ids[row : row + 1], controls.rows([row]), capacity=9)
            alone.step(np.array([token]))
            np.testing.assert_allclose(stream.decision.logits[at], alone.decision.logits[0], rtol=1e-3, atol=1e-3)

    def test_replies_hang_on_no_batch_and_are_the_plain_ones_where_beta_is_huge(self, pico: Any, tmp_path: Any) -> None:
        pico.write_checkpoint("llama", tmp_path)
        tokenizer, reward = ChatTokenizer(tmp_path), make_reward(pico.model("llama"))
        talks = pico.conversations(7)
        options: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_new_tokens": 8}
        asked = [Steering(preference={"empathy": share, "helpfulness": 1 - share}) for share in np.linspace(0, 1, 7)]
        engine = GuidedEngine.teacher(reward, self.config)
        found = generate(engine, tokenizer, talks, steering=asked, **options)
        assert found == generate(engine, tokenizer, talks, steering=asked, batch_size=2, **options)
        idle = GuidedEngine.teacher(reward, self.config.model_copy(update={"beta": 1e12}))
        plainly = generate(PlainEngine(pico.model("llama")), tokenizer, talks, **options)
        assert [reply.text for reply in generate(idle, tokenizer, talks, steering=asked, **options)] == [
            reply.text for reply in plainly
        ]

    def test_attributes_of_another_order_are_refused(self, world: World) -> None:
        swapped = self.config.model_copy(update={"attributes": list(reversed(NAMES))})
        with pytest.raises(InputError, match="in that order"):
            GuidedEngine.teacher(world.reward, swapped)

    @staticmethod
    def tokens(engine: GuidedEngine, prompt: Tensor, steering: Steering) -> list[int]:
        assert engine.config is not None
        stream = engine.prefill(prompt.numpy(), control_arrays(engine.config, [steering]), capacity=64)
        chosen = [int(stream.decision.logits[0].argmax())]
        while len(chosen) < N_NEW:
            stream.step(np.array([chosen[-1]]))
            chosen.append(int(stream.decision.logits[0].argmax()))
        return chosen
