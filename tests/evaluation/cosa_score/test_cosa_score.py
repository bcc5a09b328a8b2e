"""CoSA-Score: what a hand computes, what systems and baselines are asked, and nothing dropped without being counted."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.cosa_score import (
    CosaVerdict,
    Question,
    ScoredConfig,
    ScoreSettings,
    questions_of,
    read_configs,
    read_shots,
    render_scores,
    score_document,
    score_models,
)
from prosocial.evaluation.cosa_score.scores import score_runs
from prosocial.evaluation.cosa_score.verdicts import judge_row
from prosocial.evaluation.judges import compliance_rubric, harm_set_rubric
from prosocial.evaluation.judges.endpoint import EndpointJudge
from prosocial.evaluation.outcomes.outcome import Outcome
from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.evaluation.sampling import workers
from prosocial.evaluation.sampling.systems import open_system
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering

from ..judges.test_endpoint import Server

CONFIGS = [
    ScoredConfig("strict", "word11", frozenset(), seen=True),
    ScoredConfig("fiction", "word12 word13", frozenset(["violence"]), seen=False),
]
SHORT = ScoreSettings(max_new_tokens=3, seed=1, temperature=1.0, draws=50)
OUTCOME = Outcome("p", "<b>", Judgement(), "j 1")


class LetterJudge:
    """Grades a reply by its letters, so that there is something to count; every n-th fails where that is asked for."""

    name, version = "letters", "1"

    def __init__(self, fails_every: int = 0) -> None:
        self._fails_every, self.n_asked = fails_every, 0

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        self.n_asked += 1
        if self._fails_every and self.n_asked % self._fails_every == 0:
            return Judgement(error="it timed out")
        letters = sum(map(ord, reply))
        harm = ("violence", "other", "")[letters % 3]
        return Judgement(frozenset([harm] if harm else []), "none", {"helpfulness": letters % 5 / 4})


@pytest.fixture
def probes(probes_file: Path) -> list[Probe]:
    return [probe for probe in read_probes(probes_file) if probe.kind != "attack"]


@pytest.fixture(scope="module")
def steered(steered_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steered model with two configs of its own."""
    folder = tmp_path_factory.mktemp("configs") / "steered"
    shutil.copytree(steered_folder, folder)
    named = {config.name: {"text": config.text, "allowed": sorted(config.allowed or ())} for config in CONFIGS}
    own = DecodingConfig.read(folder).model_dump(by_alias=True)
    DecodingConfig.model_validate(own | {"allowed_ceiling": {"violence": True}, "safety_configs": named}).write(folder)
    return folder


def verdict(config: str, helpfulness: float | None, is_safe: bool | None, cluster: str = "tea") -> CosaVerdict:
    return CosaVerdict(config, cluster, helpfulness, is_safe, OUTCOME)


def test_score_and_shares_are_those_of_a_hand() -> None:
    found = [verdict("fiction", 1.0, True), verdict("fiction", 0.5, False, "rain")]
    found += [verdict("fiction", 0.0, False), verdict("fiction", 1.0, True), verdict("strict", 1.0, False)]
    system = score_runs([found], CONFIGS, draws=50)

    fiction, strict = system["configs"]["fiction"], system["configs"]["strict"]
    assert fiction["cosa_score"]["estimate"] == (1 - 0.5 - 0 + 1) / 4 and strict["cosa_score"]["estimate"] == -1
    assert (fiction["helpful_safe"]["estimate"], fiction["helpful_unsafe"]["estimate"]) == (2 / 4, 1 / 4)
    assert fiction["cosa_score"]["low"] < fiction["cosa_score"]["estimate"] < fiction["cosa_score"]["high"]
    groups = {name: entry["cosa_score"]["estimate"] for name, entry in system["groups"].items()}
    assert groups == {"all": (-1 + 0.375) / 2, "seen": -1, "unseen": 0.375}  # each config counts once, whatever its n
    assert [entry["n"] for entry in system["groups"].values()] == [5, 1, 4]


def test_runs_count_alike_whatever_their_size() -> None:
    first, second = [verdict("fiction", 1.0, True)] * 3, [verdict("fiction", 0.5, False)]
    assert score_runs([first, second], CONFIGS, draws=9)["groups"]["all"]["cosa_score"]["estimate"] == 0.25


def test_what_cannot_be_judged_is_counted_and_a_config_without_any_says_so() -> None:
    failed = CosaVerdict("strict", "tea", None, None, Outcome("p", "", Judgement(error="no grades"), "j 1"))
    document = score_document({"base": [verdict("fiction", 1.0, True), failed, failed]}, CONFIGS, draws=9)
    system = document["systems"]["base"]
    assert (system["n_unjudged"], system["reasons"]) == (2, {"no grades": 2})
    assert system["configs"]["strict"]["cosa_score"] is None and system["groups"]["all"]["n"] == 1
    assert "2 replies could not be judged: 2 times no grades" in render_scores(document)
    with pytest.raises(InputError, match="no grades"):
        score_runs([[failed]], CONFIGS)


def test_every_system_and_baseline_is_scored_and_a_killed_scoring_goes_on(
    checkpoint_folder: Path, steered: Path, probes: list[Probe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"config": c.name, "prompt": f"word{n}", "reply": "word9"} for c in CONFIGS for n in range(5)]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shots = read_shots(tmp_path / "shots.jsonl", CONFIGS)
    how = ScoreSettings(
        max_new_tokens=3, temperature=1.0, baselines=("5-shot", "cascade", "cascade-oracle"), shots=shots, draws=50
    )
    models, questions = {"base": checkpoint_folder, "steered": steered}, questions_of(probes, CONFIGS)
    whole = score_models(models, questions, judge=LetterJudge(), settings=how, out=tmp_path / "whole")

    ways = ("in-context", "in-context + cascade", "in-context + cascade-oracle", "5-shot")
    gated = [f"steered + {way.replace('in-context', 'gate')}" for way in ways]
    assert list(whole["systems"]) == [f"base + {way}" for way in ways] + gated
    for name, system in whole["systems"].items():
        assert system["groups"]["all"]["n"] == 2 * 12
        assert system["groups"]["all"]["helpful_unsafe"]["estimate"] == 0 or not name.endswith("oracle")
    plain, oracle = (whole["systems"][f"base + {way}"]["groups"]["all"] for way in (ways[0], ways[2]))
    assert plain["helpful_unsafe"]["estimate"] > 0 and plain["helpful_safe"] == oracle["helpful_safe"]
    assert whole["systems"]["base + in-context + cascade"]["n_unread_filter_answers"] == 24  # it talks in words

    drawn: list[str] = []
    real = workers.answer_shard

    def dies(shard: Any, on: Any) -> list[dict[str, Any]]:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(shard.name)
        return real(shard, on)

    monkeypatch.setattr(workers, "answer_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        score_models(models, questions, judge=LetterJudge(), settings=how, out=tmp_path / "killed")
    monkeypatch.setattr(workers, "answer_shard", lambda shard, on: drawn.append(shard.name) or real(shard, on))
    assert score_models(models, questions, judge=LetterJudge(), settings=how, out=tmp_path / "killed") == whole
    assert len(drawn) == len(set(drawn))
    for name in ("cosa_score.html", "cosa_score.json", "replies.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kept = [json.loads(line) for line in (tmp_path / "whole" / "replies.jsonl").read_text().splitlines()]
    harmful = [row["reply"] for row in kept if row["categories"]]
    assert harmful and not any("word" in reply for reply in harmful) and len(kept) == 8 * 24
    assert any("word" in row["reply"] for row in kept)


def test_two_configs_in_one_batch_reply_as_one_by_one(steered: Path, probes: list[Probe]) -> None:
    system = open_system(steered)
    asked = [(probe, Steering(safety_config=config.name)) for probe in probes for config in CONFIGS]
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}
    keys = [f"{number}" for number in range(len(asked))]
    steering = [steering for _, steering in asked]
    together = system.answer([probe for probe, _ in asked], steering=steering, keys=keys, **options)
    alone = [
        system.answer([probe], steering=steering, keys=[key], **options)[0]
        for (probe, steering), key in zip(asked, keys, strict=True)
    ]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert any(first.token_ids != second.token_ids for first, second in zip(alone[::2], alone[1::2], strict=True))


def test_the_system_message_is_the_configs_text_and_the_judge_sees_it_by_protocol(
    checkpoint_folder: Path, probes: list[Probe]
) -> None:
    heard: list[Sequence[Message]] = []

    class Listener(LetterJudge):
        def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
            heard.append(messages)
            return super().judge(messages, reply)

    question = Question(CONFIGS[1], probes[0])
    row = {"reply": "word5", "finish": "end", "error": None}
    judged = [judge_row(question, row, Listener(), protocol) for protocol in ("harm-set", "compliance")]  # type: ignore[arg-type]
    assert [messages[0]["role"] for messages in heard] == ["user", "system"]
    assert heard[1][0]["content"] == CONFIGS[1].text
    assert [one.is_safe for one in judged] == [
        judged[0].outcome.judgement.categories <= {"violence"},
        not judged[1].outcome.judgement.categories,
    ]


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def test_an_endpoint_grades_by_both_protocols_and_what_it_mumbles_is_an_error(server: Server) -> None:
    asked: list[Message] = [{"role": "user", "content": "How do I glim?"}]
    judge = EndpointJudge(ChatEndpoint(server.url, "grader", timeout=5.0), rubric=harm_set_rubric())
    server.answers = ['Here: {"helpfulness": 4, "harms": ["weapons"]}']
    assert judge.judge(asked, "Glim.") == Judgement(frozenset(["weapons"]), attributes={"helpfulness": 0.8})
    assert "setting fires" in server.bodies[-1]["messages"][0]["content"]  # the definitions are told
    for mumbled in ('{"helpfulness": 6, "harms": []}', '{"helpfulness": 3, "harms": ["glimming"]}', "unsafe"):
        server.answers = [mumbled]
        assert "no grades after 3 attempts" in str(judge.judge(asked, "Glim.").error)
    judge = EndpointJudge(ChatEndpoint(server.url, "grader", timeout=5.0), rubric=compliance_rubric())
    server.answers = ['{"helpfulness": 5, "complies": "no"}', '{"helpfulness": 5, "complies": false}']
    found = judge.judge(asked, "Glim.")
    assert found.categories == {"breaks_config"} and found.attributes == {"helpfulness": 1.0}


def test_public_sets_bring_their_configs() -> None:
    first = Probe("c1", ({"role": "system", "content": "A tea house."}, {"role": "user", "content": "Tea?"}), "benign",
                  extra={"scenario": "ab12"})  # fmt: skip
    (question,) = questions_of([first])
    assert (question.config.text, question.config.allowed, len(question.probe.messages)) == ("A tea house.", None, 1)

    def cosalign(allowed: object) -> Probe:
        return Probe(f"t{allowed}", ({"role": "user", "content": "x"},), "harmful", extra={"config_allowed": allowed})

    weapons = "Weapons, Explosives, Arson, and Illegal Firearm Transactions"
    strict, relaxed = questions_of([cosalign([]), cosalign([weapons, "Violence"])])
    assert (strict.config.allowed, strict.config.seen) == (frozenset(), True)
    assert (relaxed.config.allowed, relaxed.config.seen) == ({"weapons", "violence"}, False)
    assert "setting fires" in relaxed.config.text and "drugs" not in relaxed.config.text
    with pytest.raises(InputError, match="glimming"):
        questions_of([cosalign(["glimming"])])
    with pytest.raises(InputError, match="their own configs"):
        questions_of([first], CONFIGS)
    with pytest.raises(InputError, match="1 of 2 probes with their own config"):
        questions_of([first, Probe("p", ({"role": "user", "content": "x"},), "benign")])


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"name": "a", "text": " "}, ArtefactError, "row 1.* text"),
        ({"name": "a"}, ArtefactError, "text"),
        ({"name": "a", "text": "x", "allowed": ["drugz"]}, UnknownNameError, "drugz"),
        ({"name": "a", "text": "x", "allowed": ["other"]}, InputError, "'other', which no config may"),
        ({"name": "a", "text": "x", "system_prompt": "no slot"}, ArtefactError, "slot"),
        ({"name": "a", "text": "x", "seen": "yes"}, InputError, "seen"),
    ],
)
def test_a_row_that_is_no_config_is_named(
    row: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "configs.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(error, match=message):
        read_configs(path)


def test_what_cannot_be_scored_is_refused_before_anything_is_drawn(
    checkpoint_folder: Path, steered: Path, probes: list[Probe], tmp_path: Path
) -> None:
    other = [ScoredConfig("fiction", "word12 word13", frozenset())]
    with pytest.raises(InputError, match=r"fiction with this text and these categories.*found strict, fiction"):
        score_models({"steered": steered}, questions_of(probes, other), judge=LetterJudge(), settings=SHORT)
    text_only = questions_of(probes, [ScoredConfig("novel", "word4")])
    with pytest.raises(InputError, match="novel should list the categories"):
        score_models({"base": checkpoint_folder}, text_only, judge=LetterJudge(), settings=SHORT)
    with pytest.raises(InputError, match="5-shot should have examples"):
        how = ScoreSettings(baselines=("5-shot",))
        score_models({"base": checkpoint_folder}, questions_of(probes, CONFIGS), judge=LetterJudge(), settings=how)
    with pytest.raises(InputError, match="unique questions"):
        score_models({}, questions_of(probes, CONFIGS), judge=LetterJudge())
    (tmp_path / "shots.jsonl").write_text('{"config": "strict", "prompt": "a", "reply": "b"}')
    with pytest.raises(InputError, match="5 examples for config strict, found 1"):
        read_shots(tmp_path / "shots.jsonl", CONFIGS)


def test_the_command_scores_a_steered_model_by_its_own_configs(
    checkpoint_folder: Path, steered: Path, probes_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["config", "score", str(steered), str(checkpoint_folder), "--probes", str(probes_file), "--count", "4"]
    words += ["--judge", "lab", "--max-new-tokens", "3", "-o", str(tmp_path / "out")]
    assert main([*words, "--baseline", "cascade-oracle", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [config["name"] for config in found["configs"]] == ["strict", "fiction"]
    assert found["systems"]["checkpoint + in-context"]["groups"]["all"]["n"] == 8
    assert main(words) == 0
    assert "helpful+unsafe" in capsys.readouterr().out and (tmp_path / "out" / "cosa_score.html").is_file()
    assert main([*words[:-2], "--judge", "refusal"]) == 2
    assert "unknown judge of replies under safety configs" in capsys.readouterr().err
