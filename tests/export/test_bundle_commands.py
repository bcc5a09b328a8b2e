"""The commands about bundles, called as the command line does."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prosocial.cli.bundle import chat, export_command, generate, parse_preference
from prosocial.editing.errors import InputError, UnknownNameError
from prosocial.export import Bundle, Steering

app = typer.Typer()
app.command("export")(export_command)
app.command("generate")(generate)
app.command("chat")(chat)


def call(*words: str, given: str = "") -> tuple[str, str]:
    """Run a command; return standard output and standard error."""
    result = CliRunner().invoke(app, list(words), input=given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_generate_prints_the_reply_and_what_was_enforced(llama_bundle: Path) -> None:
    out, err = call("generate", str(llama_bundle), "word5 word9", "--prefer", "empathy=1", "--threads", "1")
    messages = [{"role": "user", "content": "word5 word9"}]
    reply = Bundle.open(llama_bundle, threads=1).generate([messages], steering=Steering(preference={"empathy": 1}))[0]
    assert out == reply.text + "\n"
    assert "threshold 0.60, allowed nothing, preference empathy 1.00" in err and f"finish {reply.finish}" in err


def test_generate_speaks_json(llama_bundle: Path) -> None:
    options = ["--safety-config", "fiction", "--temperature", "0.8", "--seed", "4", "--max-new-tokens", "5", "--json"]
    out, err = call("generate", str(llama_bundle), "-", *options, given="word5")
    data = json.loads(out)
    assert not err and data["enforced"]["allowed"] == ["violence"] and data["enforced"]["harm_threshold"] == 0.7
    assert data["enforced"]["safety_config"] == "fiction" and len(data["reply"]["token_ids"]) <= 5
    assert set(data["reply"]["max_risk"]) == {"violence", "drugs", "other"}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (["--prefer", "kindness=1"], UnknownNameError, "empathy, helpfulness"),
        (["--prefer", "empathy"], InputError, "NAME=NUMBER"),
        (["--safety-config", "nothing"], UnknownNameError, "fiction"),
        (["--safety-config", "FILE"], InputError, "refused until they can be signed"),
        (["--temperature", "-1"], InputError, "temperature"),
        (["--threads", "0"], InputError, "at least 1"),
    ],
)
def test_wrong_options_are_named(
    llama_bundle: Path, tmp_path: Path, options: list[str], error: type[Exception], match: str
) -> None:
    (tmp_path / "mine.json").write_text("{}")
    words = [str(tmp_path / "mine.json") if word == "FILE" else word for word in options]
    with pytest.raises(error, match=match):
        call("generate", str(llama_bundle), "word5", *words)


def test_chat_remembers_what_was_said(llama_bundle: Path) -> None:
    out, err = call("chat", str(llama_bundle), "--max-new-tokens", "4", given="word5\nword9\n\n")
    bundle = Bundle.open(llama_bundle, threads=1)
    messages: list[dict[str, str]] = []
    expected = ""
    for text in ("word5", "word9"):
        messages.append({"role": "user", "content": text})
        reply = bundle.generate([messages], max_new_tokens=4)[0]
        messages.append({"role": "assistant", "content": reply.text})
        expected += reply.text + "\n"
    assert out == expected and err.count("gate:") == 2


def test_export_says_what_it_wrote(plain_bundle: tuple[Path, str]) -> None:
    folder, out = plain_bundle
    assert f"wrote {folder}: plain bundle, profile ort" in out and "agrees with torch on 60 positions" in out
    said, err = call("generate", str(folder), "word5", "--max-new-tokens", "3")
    assert said.strip() and "gate: none (plain bundle)" in err
    with pytest.raises(InputError, match="cannot be steered"):
        call("generate", str(folder), "word5", "--prefer", "empathy=1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("empathy=1", {"empathy": 1.0}), (" a = .5 , b=.25 ", {"a": 0.5, "b": 0.25})],
)
def test_a_preference_is_read(text: str, expected: dict[str, float] | None) -> None:
    assert parse_preference(text) == expected


def test_preferences_given_one_by_one_count_together(llama_bundle: Path) -> None:
    words = ("generate", str(llama_bundle), "word5", "--max-new-tokens", "2", "--json")
    together, _ = call(*words, "--prefer", "empathy=.5,helpfulness=.5")
    one_by_one, _ = call(*words, "--prefer", "empathy=.5", "--prefer", "helpfulness=.5")

    assert json.loads(one_by_one) == json.loads(together)
    assert json.loads(together)["enforced"]["preference"] == {"empathy": 0.5, "helpfulness": 0.5}


@pytest.mark.parametrize("text", ["empathy=much", "empathy=1,empathy=2", "=", "empathy"])
def test_a_preference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="preference"):
        parse_preference(text)
