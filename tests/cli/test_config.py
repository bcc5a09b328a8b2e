"""`prosocial config` and `prosocial log`, with the files of the page about them, and signed configs in a bundle."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.core.signing import SigningKey
from prosocial.export import Bundle
from prosocial.steering.authorisation.authorisation import sign_config
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import AuthorisedConfig, NamedConfig, Reason, RefusedConfig
from prosocial.steering.decoding.controls import Steering

from ..signing_helpers import make_key

PAGE = Path(__file__).parents[2] / "docs" / "safety-configs.md"
SIGN = ["config", "sign", "draft.json", "--bundle", "bundle", "--valid-days", "1", "-o", "x", "--key"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(llama_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle, the files of the page, and the keys."""
    shutil.copytree(llama_bundle, tmp_path / "bundle")
    for name, text in re.findall(
        r"`([\w.]+)`:\n\n```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    make_key(tmp_path, "editor")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def signed(place: Path, bundle: Bundle, **changes: Any) -> AuthorisedConfig:
    config = NamedConfig.model_validate({"name": "novel", "text": "word9 word10", "allowed": ["violence"]} | changes)
    out, key = place / f"{config.name}-signed.json", SigningKey.read(place / "editor.pem")
    assert bundle.config is not None
    sign_config(config, out, key=key, decoding=bundle.config, manifest=bundle.manifest, valid_days=1)
    return bundle.authorise(out, trust=TrustStore.read([place / "editor.pub"]))


def test_the_log_holds_no_text_and_a_refusal_too(place: Path, capsys: Capture) -> None:
    make_key(place, "operator")
    log = ["--log", "log.jsonl", "--log-key", "operator.pem"]
    assert main(["generate", "bundle", "word5 word6", "--safety-config", "fiction", *log]) == 0
    asked = ["generate", "bundle", "word5", "--safety-config", "draft.json", "--trust", "editor.pub", *log]
    assert main(asked) == 2 and "refused (unsigned)" in capsys.readouterr().err
    request, refusal = [json.loads(line)["event"] for line in (place / "log.jsonl").read_text().splitlines()]
    assert "word" not in json.dumps(request) and request["safety_config"]["name"] == "fiction"
    assert request["allowed"] == ["violence"] and request["harm_threshold"] == 0.7
    assert refusal["reason"] == "unsigned" and len(refusal["file"]) == 64
    assert main(["log", "check", "log.jsonl", "--key", "operator.pub", "--json"]) == 0
    with (place / "log.jsonl").open("a") as stream:
        stream.write("{}\n")
    assert main(["log", "check", "log.jsonl", "--key", "operator.pub"]) == 1
    assert main(["generate", "bundle", "word5", *log]) == 2  # nothing is answered that cannot be logged


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["generate", "bundle", "word5", "--safety-config", "draft.json"], "--trust"),
        (["generate", "bundle", "word5", "--safety-config", "nothing"], "known are fiction"),
        (["generate", "bundle", "word5", "--log", "log.jsonl"], "--log-key"),
        (
            [
                "config",
                "sign",
                "draft.json",
                "--bundle",
                "bundle",
                "--key",
                "editor.pem",
                "--valid-days",
                "1",
                "-o",
                "x",
            ],
            "compile",
        ),
        (
            [
                "config",
                "sign",
                "draft.json",
                "--bundle",
                "bundle",
                "--key",
                "editor.pub",
                "--valid-days",
                "1",
                "-o",
                "x",
            ],
            "private key",
        ),
        (["config", "compile", "draft.json", "--bundle", "bundle", "-o", "x"], "approve"),
        (["config", "compile", "draft.json", "--bundle", "bundle", "-o", "draft.json"], "not exist yet"),
        (["config", "compile", "draft.json", "--bundle", "bundle", "--endpoint", "m", "-o", "x"], "MODEL@URL"),
        (["config", "revoke", "trust.json"], "--serial or --key"),
        (["config", "revoke", "draft.json", "--serial", "0"], "prosocial.trust/1"),
        (["config", "test", "nothing", "--bundle", "bundle", "--prompts", "prompts.jsonl"], "known are fiction"),
        (["config", "test", "fiction", "--bundle", "bundle", "--prompts", "trust.json"], "line 1"),
        (["log", "check", "log.jsonl", "--key", "editor.pub"], "no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(place: Path, words: list[str], match: str, capsys: Capture) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert match in said and said.splitlines()[-1].startswith("error: ")
    assert not (place / "x").exists() and not (place / "log.jsonl").exists()


def test_a_contradiction_is_warned_of_with_both_sides(place: Path, capsys: Capture) -> None:
    config = {"name": "odd", "text": "No violence.", "allowed": ["violence"], "schema": "prosocial.safety_config/1"}
    (place / "odd.json").write_text(json.dumps(config))
    assert main(["config", "check", "odd.json", "--bundle", "bundle"]) == 0
    said = capsys.readouterr().err
    assert (
        "the text forbids it, the mask allows it" in said and "text: No violence." in said and "mask: violence" in said
    )


def test_two_configs_in_one_batch_are_as_one_by_one(llama_bundle: Path, place: Path, pico: Any) -> None:
    bundle = Bundle.open(llama_bundle, threads=1)
    first = signed(place, bundle, name="first", threshold=0.85, preference={"empathy": 1.0})
    second = signed(place, bundle, name="second", text="word11 word12", allowed=[], threshold=0.5, fallback="word13")
    asked = [Steering(safety_config=(first, second, "fiction")[at % 3]) for at in range(12)]
    conversations = pico.conversations(12)
    together = bundle.generate(conversations, steering=asked)
    alone = [bundle.generate([one], steering=each)[0] for one, each in zip(conversations, asked, strict=True)]
    assert [(reply.text, reply.events) for reply in together] == [(reply.text, reply.events) for reply in alone]
    swapped = bundle.generate(conversations, steering=[*asked[1:], asked[0]])
    assert [reply.text for reply in together] != [reply.text for reply in swapped]  # the control: configs matter


def test_a_config_has_its_own_fallback(llama_bundle: Path, place: Path, pico: Any) -> None:
    bundle = Bundle.open(llama_bundle, threads=1)
    shut = signed(place, bundle, name="shut", threshold=0.0, fallback="word13")
    conversation = pico.conversations(1)
    own, none = bundle.generate(conversation * 2, steering=[Steering(safety_config=shut), Steering(harm_threshold=0.0)])
    assert (own.finish, own.text, none.text) == ("fallback", "word13", "I cannot help with that.")
    streamed = bundle.stream(conversation[0], steering=Steering(safety_config=shut))
    assert "".join(streamed).split("\n")[-1] == "word13"


def test_a_config_let_in_for_one_bundle_is_refused_by_another(
    llama_bundle: Path, portable_bundle: Path, place: Path, pico: Any
) -> None:
    found = signed(place, Bundle.open(llama_bundle, threads=1))
    other = Bundle.open(portable_bundle, threads=1)
    for ask in (other.generate, lambda each, **options: other.stream(each[0], **options)):
        with pytest.raises(RefusedConfig) as refused:
            ask(pico.conversations(1), steering=Steering(safety_config=found))
        assert refused.value.reason is Reason.OTHER_BUNDLE
