"""Labels come from any judge, a killed run goes on, two judges are compared, and silence is never taken for a label."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.judges.attribute_endpoint import AttributeEndpoint
from prosocial.evaluation.judges.requests import AttributeRequest, CategoryRequest
from prosocial.evaluation.judges.text_classifier import TextClassifier
from prosocial.recipes.labelling.agreement import agreement
from prosocial.recipes.labelling.judges import attribute_judge, judge_named
from prosocial.recipes.labelling.pairs import label_pairs
from prosocial.recipes.labelling.rows import label_rows
from prosocial.training.gate.replies import read_replies
from prosocial.training.reward.attributes import Attribute, define_attributes
from prosocial.training.reward.pairs import read_pairs

from ...evaluation.pico_classifier import save_classifier
from ..chat_endpoint import Endpoint

OWN = """
from prosocial.core.protocols import Judgement

class Half:
    name, version = "half", "1"

    def judge(self, messages, reply):
        return Judgement(frozenset(), "none", {"helpfulness": 0.5}, True)
"""
WARM, COLD = "i hear that you feel sad.", "cheer up, it is nothing."
PAIRS = [{"prompt": "i feel sad.", "first": f"{WARM} {n}", "second": f"{COLD} {n}"} for n in range(4)]
ATTRIBUTES = [Attribute("empathy", "The reply names the feeling."), Attribute("helpfulness", "The reply helps.")]


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any]], str | int]], Endpoint]]:
    opened: list[Endpoint] = []

    def start(answer: Callable[[dict[str, Any]], str | int]) -> Endpoint:
        opened.append(Endpoint(answer))
        return opened[-1]

    yield start
    for endpoint in opened:
        endpoint.close()


def scores(request: dict[str, Any]) -> str:
    """What a model might say: it likes the warm reply, in a fence."""
    reply = json.loads(request["messages"][1]["content"])["reply"]
    return f'Here you are:\n```json\n{{"scores": {{"empathy": {9 if "hear" in reply else 1}, "helpfulness": 5}}}}\n```'


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def rubrics() -> dict[str, str]:
    return {attribute.name: attribute.rubric for attribute in ATTRIBUTES}


def test_an_endpoint_labels_pairs(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = serve(scores)
    source, out = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "labelled.jsonl"
    given = ["--judge", f"endpoint:m@{endpoint.url}", "--attributes", "empathy,helpfulness", "--json"]

    assert main(["reward", "label", str(source), "-o", str(out), *given]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["empathy"] == {"first": 4}
    pairs = read_pairs(out, attributes=["empathy", "helpfulness"])
    assert [pair.signs(["empathy", "helpfulness"]) for pair in pairs] == [[1.0, 0.0]] * 4
    assert "names and acknowledges what the person feels" in endpoint.requests[0]["messages"][0]["content"]
    assert endpoint.requests[0]["temperature"] == 0.0


def test_an_endpoint_names_harms(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(
        lambda request: json.dumps({"harms": ["theft"] if "take it" in request["messages"][1]["content"] else []})
    )
    rows = [{"prompt": "how?", "reply": "just take it."}, {"prompt": "how?", "reply": "i will not."}]
    source, out = write(tmp_path / "replies.jsonl", rows), tmp_path / "labelled.jsonl"
    given = ["--judge", f"endpoint:m@{endpoint.url}", "--categories", "theft,other"]

    assert main(["gate", "label", str(source), "-o", str(out), *given]) == 0
    assert [sorted(reply.categories) for reply in read_replies(out, categories=["theft", "other"])] == [["theft"], []]


def test_the_users_own_token_of_the_hub_is_not_sent(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    endpoint = serve(scores)
    AttributeEndpoint(ChatEndpoint(endpoint.url, "m"), rubrics=rubrics()).judge([], "x")
    AttributeEndpoint(ChatEndpoint(endpoint.url, "m", key="mine"), rubrics=rubrics()).judge([], "x")

    assert [headers.get("authorization", headers.get("Authorization")) for headers in endpoint.headers] == [
        None,
        "Bearer mine",
    ]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "I like it.",
        "{",
        "[1]",
        '{"scores": {"empathy": 11, "helpfulness": 5}}',
        '{"scores": {"empathy": 5}}',
        '{"scores": 3}',
    ],
)
def test_an_answer_that_cannot_be_read_is_no_verdict_and_is_asked_for_again(serve: Any, said: str) -> None:
    endpoint = serve(lambda request: said)
    found = AttributeEndpoint(ChatEndpoint(endpoint.url, "m"), rubrics=rubrics(), tries=3).judge([], "x")

    assert "should answer in the requested JSON form" in str(found.error) and not found.attributes
    assert len(endpoint.requests) == 3


def test_what_gets_no_verdict_is_missing_for_pairs_and_unlabelled_for_replies(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda request: "no idea")
    pairs = write(tmp_path / "pairs.jsonl", PAIRS[:1])
    judge = AttributeEndpoint(ChatEndpoint(endpoint.url, "m"), rubrics=rubrics())
    label_pairs(pairs, out=tmp_path / "p.jsonl", judges=[judge], attributes=ATTRIBUTES, tie_margin=0.05)
    replies = write(tmp_path / "replies.jsonl", [{"prompt": "how?", "reply": "so."}])
    given = ["--judge", f"endpoint:m@{endpoint.url}", "--categories", "theft"]

    assert read_pairs(tmp_path / "p.jsonl", attributes=["empathy", "helpfulness"])[0].signs(["empathy"]) == [0.0]
    assert main(["gate", "label", str(replies), "-o", str(tmp_path / "r.jsonl"), *given]) == 3
    with pytest.raises(InputError, match="missing categories"):
        read_replies(tmp_path / "r.jsonl", categories=["theft"])


def test_a_run_that_was_cut_off_goes_on_without_asking_again(serve: Any, tmp_path: Path) -> None:
    broken = [False]
    endpoint = serve(lambda request: 500 if broken[0] else scores(request))
    source, out = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "labelled.jsonl"

    def run(on_row: Callable[[], None] = lambda: None) -> None:
        judge = AttributeEndpoint(ChatEndpoint(endpoint.url, "m"), rubrics=rubrics())
        label_pairs(source, out=out, judges=[judge], attributes=ATTRIBUTES, tie_margin=0.05, on_row=on_row)

    seen: list[int] = []

    def break_after_two() -> None:
        seen.append(1)
        broken[0] = len(seen) == 2

    with pytest.raises(InputError, match=r"the judge at http://127\.0\.0\.1:\d+/v1 should answer"):
        run(break_after_two)
    assert not out.exists()
    (partial,) = tmp_path.glob(".labelled.jsonl.*.partial")
    partial.write_bytes(partial.read_bytes() + b'{"half')
    broken[0], before = False, len(endpoint.requests)
    run()

    assert len(endpoint.requests) - before == 4  # two pairs of two replies
    assert len(read_pairs(out, attributes=["empathy", "helpfulness"])) == 4
    assert not list(tmp_path.glob(".*partial"))
    with pytest.raises(InputError, match="should not exist yet"):
        run()


def test_an_endpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    judge = AttributeEndpoint(ChatEndpoint("http://127.0.0.1:9/v1", "m", timeout=2), rubrics=rubrics())
    with pytest.raises(InputError, match=r"the judge at http://127\.0\.0\.1:9/v1 should answer: .*; check the address"):
        judge.judge([], "x")
    with pytest.raises(InputError, match="MODEL@URL"):
        judge_named("endpoint:m", AttributeRequest(ATTRIBUTES))
    with pytest.raises(UnknownNameError, match="unknown judge 'nobody'"):
        judge_named("nobody", CategoryRequest(["theft"]))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"), ["empathy", "theft"], independent=True)


def test_a_classifiers_probabilities_are_scores_and_harms(classifier: Path) -> None:
    scorer = judge_named(f"classifier:{classifier}", AttributeRequest(ATTRIBUTES[:1]))
    namer = judge_named(f"classifier:{classifier}", CategoryRequest(["theft"]))
    asked, replies = [{"role": "user", "content": "i"}], ("hear sad", "take it up")
    scores = [scorer.judge(asked, reply).attributes["empathy"] for reply in replies]

    assert isinstance(scorer, TextClassifier) and scorer.name.startswith("classifier:")
    assert len(set(scores)) == 2 and all(0 < score < 1 for score in scores)
    assert {name for reply in replies for name in namer.judge(asked, reply).categories} <= {"theft"}


def test_a_classifier_must_know_what_it_is_asked_for(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown attribute .* 'charm': known are empathy, theft"):
        TextClassifier(classifier, attributes=["charm"], categories=[])
    with pytest.raises(UnknownNameError, match="unknown harm category"):
        TextClassifier(classifier, attributes=[], categories=["arson"])


class Fixed:
    """Prefers what a function says."""

    version = "1"

    def __init__(self, name: str, score: Callable[[str], float | None]) -> None:
        self.name, self._score = name, score

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        value = self._score(reply)
        return Judgement(attributes={} if value is None else {"empathy": value})


def test_two_judges_are_compared(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", PAIRS)
    one, other = Fixed("a", lambda reply: float("hear" in reply)), Fixed("b", lambda reply: float("0" not in reply))
    found = label_pairs(source, out=tmp_path / "out.jsonl", judges=[one, other], attributes=ATTRIBUTES, tie_margin=0.05)

    assert found["agreement"]["empathy"] == {"n": 4, "share": 0.0, "kappa": 0.0}
    assert found["agreement"]["helpfulness"] == {"n": 0, "share": None, "kappa": None}
    assert read_pairs(tmp_path / "out.jsonl", attributes=["empathy", "helpfulness"])[0].labels["empathy"] == "first"


def test_kappa_equals_the_worked_example_and_its_limits() -> None:
    first = ["a"] * 25 + ["b"] * 25
    assert agreement(first, ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15).kappa == pytest.approx(0.4)
    assert agreement(first, first).kappa == 1.0
    assert agreement(["a", "a"], ["a", "a"]).kappa is None
    assert agreement([None, "a"], ["a", None]).n == 0


def test_the_lab_judges_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, replies = write(tmp_path / "p.jsonl", PAIRS), [{"prompt": "hello", "reply": WARM}]
    source = write(tmp_path / "r.jsonl", replies)
    assert (
        main(["reward", "label", str(pairs), "--judge", "lab", "--second-judge", "lab", "-o", str(tmp_path / "a")]) == 0
    )
    assert main(["gate", "label", str(source), "--judge", "lab", "-o", str(tmp_path / "b")]) == 0

    assert "100%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward", "label", "IN", "--judge", "lab", "--attributes", "charm"], "unknown attribute 'charm': known are"),
        (["reward", "label", "IN", "--judge", "lab", "--rubric", "charm"], "--rubric should be NAME=TEXT"),
        (["reward", "label", "IN", "--judge", "endpoint:m"], "MODEL@URL"),
        (["gate", "label", "IN", "--judge", "endpoint:m@http://x"], "give --categories"),
        (["gate", "label", "IN", "--judge", "lab"], "should hold a reply"),
        (["reward", "label", "MISSING", "--judge", "lab"], "expected a JSONL file"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", PAIRS)
    places = {"IN": str(source), "MISSING": str(tmp_path / "none.jsonl")}

    assert main([*(places.get(word, word) for word in words), "-o", str(tmp_path / "out.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_a_rubric_of_ones_own_is_asked_for(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda request: '{"scores": {"brevity": 3}}')
    source = write(tmp_path / "in.jsonl", PAIRS[:1])
    given = ["--attributes", "brevity", "--rubric", "brevity=The reply is short."]
    judge = ["--judge", f"endpoint:m@{endpoint.url}"]

    assert main(["reward", "label", str(source), *given, *judge, "-o", str(tmp_path / "out")]) == 0
    assert "- brevity: The reply is short." in endpoint.requests[0]["messages"][0]["content"]
    assert define_attributes({"brevity": "x"}).keys() > {"brevity", "empathy"}


def test_a_panel_takes_each_attribute_from_its_judge(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    panel = attribute_judge({"empathy": "lab", "helpfulness": f"{tmp_path / 'own.py'}:Half"}, rubrics())

    scores = panel.judge([{"role": "user", "content": "i feel sad."}], WARM).attributes
    assert panel.name == "half+lab" and set(scores) == {"empathy", "helpfulness"} and scores["helpfulness"] == 0.5
    with pytest.raises(UnknownNameError, match="judge of attributes 'refusal'"):
        attribute_judge({"empathy": "lab", "helpfulness": "refusal"}, rubrics())
    assert attribute_judge({"empathy": "lab", "helpfulness": "lab"}, rubrics()).name == "lab"


def test_no_rows_make_an_empty_file(tmp_path: Path) -> None:
    assert label_rows([], lambda row: row, out=tmp_path / "out.jsonl", made_with={}) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
