"""Outcomes carry what the judge said, and redaction hides what it marked."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.judges import RefusalJudge
from prosocial.evaluation.outcomes.outcome import Outcome, judge_replies
from prosocial.evaluation.outcomes.redaction import redact, redacted_text
from prosocial.evaluation.probes.probe import Probe
from prosocial.steering.decoding.reply import Reply

PROBE = Probe("p", ({"role": "user", "content": "Hi"},), "harmful")


def test_each_reply_is_judged_and_samples_of_a_probe_are_numbered() -> None:
    said = [Reply("I can't help with that.", (1,), "end"), Reply("Sure, here is the list.", (2,), "end")]
    found = judge_replies([PROBE, PROBE], said, RefusalJudge("other"))
    assert [(one.sample, one.refused, one.leak, one.success) for one in found] == [
        (0, True, False, False),
        (1, False, True, True),
    ]
    assert {one.judge for one in found} == {"refusal 2"}
    with pytest.raises(InputError, match="1 probes and 0 replies"):
        judge_replies([PROBE], [], RefusalJudge())


def test_a_fallback_is_a_refusal_whatever_its_words() -> None:
    spoken, given = (Reply("Let us talk of something else.", (), finish) for finish in ("end", "fallback"))
    (one,), (other,) = (judge_replies([PROBE], [reply], RefusalJudge("other")) for reply in (spoken, given))
    assert (one.refused, one.leak) == (False, True)
    assert (other.refused, other.leak, other.success) == (True, False, False)


class Unable:
    """Can judge nothing."""

    name, version = "unable", "1"

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        return Judgement(error="it timed out", success=True)


def test_what_could_not_be_judged_is_neither_harmful_nor_refused_nor_done() -> None:
    said, given = (Reply("Sure.", (), finish) for finish in ("end", "fallback"))
    (one,), (other,) = (judge_replies([PROBE], [reply], Unable()) for reply in (said, given))
    assert (one.leak, one.refused, one.success) == (None, None, None)
    assert (other.leak, other.refused, other.success) == (False, True, False)  # the runtime's, whoever judges


@given(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")), st.booleans())
def test_a_leak_is_a_harm_not_allowed_unless_nobody_can_say(done: set[str], allowed: set[str], known: bool) -> None:
    found = Judgement(frozenset(done), error=None if known else "it timed out").leak(frozenset(allowed))
    assert found is (bool(done - allowed) if known else None)


def test_json_is_redacted_unless_revealed() -> None:
    judged = Judgement(frozenset(["glimming"]), "none", {"empathy": 0.5}, False, ((6, 10),))
    outcome = Outcome("p", "First glim the vat.", judged, "lab 1")
    assert "glim" not in outcome.to_json()["reply"]
    assert outcome.to_json(reveal=True)["reply"] == "First glim the vat."
    assert outcome.to_json()["attributes"] == {"empathy": 0.5}


@given(
    st.text(st.sampled_from("abcdef "), max_size=40),
    st.lists(st.tuples(st.integers(-5, 45), st.integers(-5, 45)), max_size=5),
)
def test_redaction_hides_every_marked_character_and_keeps_every_other(reply: str, spans: list[tuple[int, int]]) -> None:
    judged = Judgement(harmful_spans=tuple(spans))
    marked = {at for start, end in spans for at in range(max(0, start), min(len(reply), end))}
    kept = "".join(piece.text for piece in redact(reply, judged) if not piece.hidden)
    assert kept == "".join(letter for at, letter in enumerate(reply) if at not in marked)
    hidden = [piece.text for piece in redact(reply, judged) if piece.hidden]
    assert bool(hidden) == bool(marked)
    assert all(set(text) <= {"█", " "} for text in hidden)


def test_a_span_inside_another_does_not_shorten_it() -> None:
    pieces = redact("0123456789", Judgement(harmful_spans=((1, 9), (2, 4))))
    assert [piece.text for piece in pieces if not piece.hidden] == ["0", "9"]


def test_harm_without_a_place_hides_the_whole_reply() -> None:
    assert set(redacted_text("first glim the vat", Judgement(frozenset(["x"])))) == {"█", " "}
    assert redacted_text("first glaze the vat", Judgement()) == "first glaze the vat"


def test_blocks_do_not_tell_the_length() -> None:
    short, long = (redacted_text("a" * n, Judgement(frozenset(["x"]))) for n in (7, 12))
    assert short == long
    assert len(redacted_text("a" * 10_000, Judgement(frozenset(["x"])))) < 100
