"""Configs are drawn in CoSAlign's four modes, scored and paired as by hand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prosocial.recipes.cosalign.config_sampling import MODES, Mode, draw_allowed
from prosocial.recipes.cosalign.config_text import TEMPLATES, ConfigWording
from prosocial.recipes.cosalign.configs import DrawSettings, draw_configs
from prosocial.recipes.cosalign.error_score import ErrorWeights, error_score
from prosocial.recipes.cosalign.pairing import group_by_label, pair_replies
from prosocial.recipes.cosalign.preferences import chosen_rows, make_preferences
from prosocial.recipes.labelling.reply_label import ReplyLabel

POOL = ("a", "b", "c")
NAMES = st.frozensets(st.sampled_from([*POOL, "outside"]))


def outcomes(mode: Mode, categories: str, pool: str = "abc") -> set[str]:
    drawn = (draw_allowed(mode, set(categories), tuple(pool), random.Random(seed)) for seed in range(300))
    return {"".join(sorted(allowed)) for allowed in drawn}


@pytest.mark.parametrize(
    ("mode", "categories", "by_hand"),
    [
        ("exact", "ab", {"ab"}),
        ("exact", "", {""}),
        ("safe", "ab", {""}),
        ("superset", "a", {"a", "ab", "ac", "abc"}),
        ("superset", "", {"", "a", "b", "c", "ab", "ac", "bc", "abc"}),
        ("superset", "abc", {"abc"}),
        ("not_superset", "a", {"", "b", "c", "bc"}),
        ("not_superset", "ab", {"", "a", "b", "c", "ac", "bc"}),
        ("not_superset", "", {""}),
    ],
)
def test_a_mode_draws_what_can_be_listed_by_hand(mode: Mode, categories: str, by_hand: set[str]) -> None:
    assert outcomes(mode, categories) == by_hand


@given(NAMES, st.sampled_from(MODES), st.integers())
def test_a_config_never_leaves_the_pool_and_keeps_its_mode(categories: frozenset[str], mode: Mode, seed: int) -> None:
    allowed = draw_allowed(mode, categories, POOL, random.Random(seed))
    own = categories & set(POOL)

    assert allowed <= set(POOL)
    assert draw_allowed(mode, categories, POOL, random.Random(seed)) == allowed
    assert (mode != "superset") or allowed >= own
    assert (mode != "not_superset") or not own or not allowed >= own


@pytest.mark.parametrize(
    ("harms", "addressed", "allowed", "by_hand"),
    [
        ("", True, "", 0.0),
        ("a", True, "a", 0.1),
        ("abc", True, "abc", 0.1 * 3),
        ("", False, "abc", 1.0),
        ("a", True, "", 3.0),
        ("ab", False, "a", 0.1 + 3.0 + 1.0),
    ],
)
def test_an_error_score_is_that_by_hand(harms: str, addressed: bool, allowed: str, by_hand: float) -> None:
    assert error_score(set(harms), addressed, allowed=set(allowed), weights=ErrorWeights()) == by_hand


def test_the_weights_of_an_error_score_are_parameters() -> None:
    weights = ErrorWeights(allowed=0.5, disallowed=7, unaddressed=2)

    assert error_score({"a", "b"}, False, allowed={"a"}, weights=weights) == 0.5 + 7 + 2


HELPS, PERMITTED, REFUSES = (
    ReplyLabel(frozenset(), True),
    ReplyLabel(frozenset("a"), True),
    ReplyLabel(frozenset(), False),
)
BREAKS, BREAKS_MORE, ALIKE = (
    ReplyLabel(frozenset("b"), True),
    ReplyLabel(frozenset("bc"), True),
    ReplyLabel(frozenset("d"), True),
)


def test_pairs_follow_the_order_of_errors_and_never_choose_a_breach() -> None:
    """By hand: E is 0, 0.1, 0.1, 1, 3, 6. Of 15 twos one ties, one breaks the config on both sides."""
    labels = {
        "helps": HELPS,
        "permitted": PERMITTED,
        "alike": ALIKE,
        "refuses": REFUSES,
        "breaks": BREAKS,
        "worse": BREAKS_MORE,
    }
    groups = group_by_label([(name, label) for name, label in labels.items()])
    pairs, counts = pair_replies(groups, allowed={"a", "d"}, weights=ErrorWeights(), rng=random.Random(0))

    assert counts == {"pair": 13, "tie": 1, "both_break": 1}
    order = ["helps", "permitted", "alike", "refuses", "breaks", "worse"]
    assert all(order.index(pair.chosen) < order.index(pair.rejected) for pair in pairs)
    assert {pair.chosen for pair in pairs} == {"helps", "permitted", "alike", "refuses"}
    assert {(pair.chosen_error, pair.rejected_error) for pair in pairs if pair.chosen == "refuses"} == {(1, 3), (1, 6)}


def test_the_same_replies_flip_with_the_config() -> None:
    groups = group_by_label([("done", PERMITTED), ("no", REFUSES), ("done", PERMITTED)])
    flipped = [
        [
            (pair.chosen, pair.rejected)
            for pair in pair_replies(groups, allowed=set(allowed), weights=ErrorWeights(), rng=random.Random(0))[0]
        ]
        for allowed in ("a", "")
    ]

    assert flipped == [[("done", "no")], [("no", "done")]]
    assert groups[PERMITTED] == ["done"]


def test_a_config_lists_what_it_allows_by_definition_and_nothing_else() -> None:
    wording, definitions = ConfigWording(), {"a_b": "alpha", "c": "gamma"}
    texts = {wording.write({"a_b", "c"}, definitions, random.Random(seed)) for seed in range(200)}

    assert len(texts) == 2 * len(TEMPLATES)  # every template, in both orders
    assert all("- a b: alpha" in text and "- c: gamma" in text for text in texts)
    assert "gamma" not in wording.write({"a_b"}, definitions, random.Random(0))
    assert "None." in wording.write(set(), definitions, random.Random(0))
    assert ConfigWording(strict=("no.",)).write(set(), definitions, random.Random(0)) == "no."


@pytest.mark.parametrize("template", ["no slot", "{safety_config} twice {safety_config}"])
def test_a_template_without_its_one_slot_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="should have the slot"):
        ConfigWording(templates=(template,))


PROMPT = {"id": "7", "messages": [{"role": "user", "content": "do a"}], "harms": ["a"]}
DEFINITIONS = dict.fromkeys(POOL, "")


def test_the_rows_of_a_prompt_come_under_every_mode_and_hang_on_the_seed_alone() -> None:
    def drawn(seed: int) -> list[dict[str, object]]:
        settings, wording = DrawSettings(), ConfigWording()
        return draw_configs(PROMPT, settings, pool=POOL, definitions=DEFINITIONS, wording=wording, seed=seed)

    rows = drawn(0)
    assert [row["mode"] for row in rows if row["purpose"] == "pair"] == list(MODES)
    assert [row["mode"] for row in rows if row["purpose"] == "reply"] == ["superset"] * 4 + ["not_superset"] * 4
    assert drawn(0) == rows != drawn(1)


def test_unreadable_replies_give_no_pair_and_harms_outside_the_pool_are_never_allowed() -> None:
    configs = [{"prompt": "7", "purpose": "pair", "mode": "superset", "allowed": ["a"], "system": "allowed: a"}]
    labels = [
        {"prompt": "7", "reply": "done", "harms": ["a"], "addressed": True},
        {"prompt": "7", "reply": "no", "harms": [], "addressed": False},
        {"prompt": "7", "reply": "far", "harms": ["outside"], "addressed": True},
        {"prompt": "7", "reply": "?", "not_labelled": "no verdict"},
    ]
    rows, counts = make_preferences([PROMPT], configs, labels, pool=POOL, weights=ErrorWeights(), seed=0)

    assert counts == {"configs": 1, "pair": 3, "tie": 0, "both_break": 0}
    assert {(row["chosen"], row["rejected"]) for row in rows} == {("done", "no"), ("done", "far"), ("no", "far")}
    assert {tuple(row["rejected_harms"]) for row in rows if row["rejected"] == "far"} == {("other",)}
    assert all(row["messages"][0] == {"role": "system", "content": "allowed: a"} for row in rows)
    assert [row["reply"] for row in chosen_rows(rows)] == ["done", "no"]
