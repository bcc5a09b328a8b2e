"""The commands about bundles, called as the command line does."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prosocial.cli.bundle import export_command, generate
from prosocial.cli.chat import Conversation, chat, event_line, printable
from prosocial.cli.reply_options import parse_preference
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.export import Bundle
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.draft import GateEvent
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.sampling import Sampling

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
        (["--safety-config", "FILE"], InputError, "add --trust"),
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


def test_a_pipe_gives_no_commands(llama_bundle: Path) -> None:
    """Text from elsewhere, one line of it, should not be able to change what binds the replies."""
    _, err = call("chat", str(llama_bundle), "--max-new-tokens", "2", given="/config fiction\n/quit\n")
    assert err.count("gate: threshold 0.60, allowed nothing") == 2


def test_a_conversation_follows_its_commands(llama_bundle: Path) -> None:
    talk = Conversation(Bundle.open(llama_bundle, threads=1), "", "", {"max_new_tokens": 4})
    assert list(talk.say("word5")) and talk.messages == []
    talk.heard("word5", Reply("word6", (), "end"))
    assert talk.command("/prefer empathy=1") and talk.steering == Steering(preference={"empathy": 1.0})
    assert talk.command("/config fiction")
    assert talk.steering == Steering(preference={"empathy": 1.0}, safety_config="fiction") and len(talk.messages) == 2
    with pytest.raises(UnknownNameError, match="fiction"):
        talk.command("/config nothing")
    with pytest.raises(UnknownNameError, match="/prefer"):
        talk.command("/allow violence")
    with pytest.raises(UnknownNameError, match="empathy"):
        talk.command("/prefer kindness=1")
    assert talk.steering == Steering(preference={"empathy": 1.0}, safety_config="fiction")
    assert talk.command("/config") and talk.command("/prefer") and talk.steering == Steering()
    assert talk.command("/reset") and talk.messages == [] and not talk.command("/quit")


def test_a_terminal_shows_the_panel_and_follows_commands(llama_bundle: Path) -> None:
    keys = b"word5\r/config fiction\r/prefer empathy=1\r/what\rword9\r/quit\r"
    shown = in_terminal(["chat", str(llama_bundle), "--max-new-tokens", "4", "--threads", "1"], keys)
    bundle = Bundle.open(llama_bundle, threads=1)
    reply = bundle.generate([[{"role": "user", "content": "word5"}]], max_new_tokens=4)[0]
    assert reply.text in shown and "known: fiction" in shown and "fiction (known: fiction)" in shown
    assert "threshold" in shown and "0.70 (ceiling 0.90)" in shown and "unknown command '/what'" in shown
    assert shown.count("gate: threshold") == 2


def in_terminal(words: list[str], keys: bytes) -> str:
    """Run `prosocial` in a terminal, type some keys, return what the screen shows, without its colours."""
    program = "import sys\nfrom prosocial.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, keys)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the program ends
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_a_models_words_do_not_steer_the_terminal() -> None:
    assert printable("a\x1b[31m\x07b\u00a0\n") == "a\\x1b[31m\\x07b\u00a0\n"
    fallback = event_line(GateEvent(3, "fallback", 3, None))
    assert fallback == "gate: nothing was safe after 3 tokens: the fallback is the reply"


def test_flags_of_sampling_reach_the_reply(llama_bundle: Path) -> None:
    flags = ["--temperature", "1.2", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty", "1.1"]
    out, _ = call("generate", str(llama_bundle), "word5", *flags, "--seed", "3", "--log-probabilities", "--json")
    sampling = Sampling(temperature=1.2, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.1, seed=3)
    bundle, found = Bundle.open(llama_bundle, threads=1), json.loads(out)["reply"]
    (reply,) = bundle.generate([[{"role": "user", "content": "word5"}]], sampling=sampling, log_probabilities=True)
    assert tuple(found["token_ids"]) == reply.token_ids and len(reply.token_ids) > 3
    assert found["log_probabilities"] == pytest.approx(reply.log_probabilities, abs=1e-4)
    stopped, _ = call("generate", str(llama_bundle), "word5", *flags, "--seed", "3", "--stop", reply.text.split()[2])
    assert stopped.split() == reply.text.split()[: len(stopped.split())] and len(stopped.split()) == 2


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
