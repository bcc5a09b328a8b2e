"""In a chat, a line is on disk before the first word of its reply is shown; if it cannot be written, none is shown."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prosocial.cli.chat import Conversation, _show_reply
from prosocial.cli.reply_options import enforced_by, gate_line
from prosocial.cli.safety_options import RequestLog
from prosocial.core.errors import ArtefactError
from prosocial.core.signing import SigningKey
from prosocial.export import Bundle
from prosocial.steering.audit_log.events import request_event
from prosocial.steering.audit_log.log import AuditLog
from prosocial.steering.decoding.controls import Steering

from ..signing_helpers import make_key


class Screen(io.StringIO):
    """A screen that notes how many lines the log has whenever something is written on it."""

    def __init__(self, log: Path, *, stop_at: int | None = None) -> None:
        super().__init__()
        self.log, self.stop_at, self.lines_at = log, stop_at, list[int]()

    def write(self, text: str) -> int:
        if text.strip():
            self.lines_at.append(len(self.log.read_text().splitlines()) if self.log.exists() else 0)
            if len(self.lines_at) == self.stop_at:
                raise KeyboardInterrupt
        return super().write(text)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    key = SigningKey.read(make_key(tmp_path, "operator"))
    return AuditLog(tmp_path / "log.jsonl", tmp_path / "head.json", key)


def talk_of(bundle: Path, log: AuditLog) -> Conversation:
    return Conversation(Bundle.open(bundle, threads=1), "", "", {"max_new_tokens": 6}, log=RequestLog(log))


def kinds(log: AuditLog) -> list[str]:
    return [json.loads(line)["event"]["kind"] for line in log.path.read_text().splitlines()]


def test_a_line_is_there_before_the_first_word(llama_bundle: Path, log: AuditLog) -> None:
    screen = Screen(log.path)
    _show_reply(talk_of(llama_bundle, log), "word5 word6", Console(file=screen))
    assert screen.lines_at[0] == 1 and kinds(log) == ["request started", "request"]
    started, ended = (json.loads(line)["event"] for line in log.path.read_text().splitlines())
    assert started["conversation"] == ended["conversation"] and "reply" not in started


def test_a_stopped_reply_is_in_the_log(llama_bundle: Path, log: AuditLog) -> None:
    _show_reply(talk_of(llama_bundle, log), "word5 word6", Console(file=Screen(log.path, stop_at=1)))
    assert kinds(log) == ["request started", "request stopped"]


def test_no_word_is_shown_without_a_line(llama_bundle: Path, log: AuditLog) -> None:
    talk: Any = talk_of(llama_bundle, log)
    log.path.write_text("{}\n")
    screen = Screen(log.path)
    with pytest.raises(ArtefactError, match="log check"):
        _show_reply(talk, "word5 word6", Console(file=screen))
    assert screen.getvalue() == "" and talk.messages == []


@pytest.mark.parametrize(("threshold", "shown"), [(0.6, "0.60"), (0.29996, "0.29996"), (0.004, "0.004"), (0.0, "0.00")])
def test_the_threshold_shown_is_the_one_in_force(llama_bundle: Path, threshold: float, shown: str) -> None:
    bundle, steering = Bundle.open(llama_bundle, threads=1), Steering(harm_threshold=threshold)
    (reply,) = bundle.generate([[{"role": "user", "content": "word5"}]], steering=steering, max_new_tokens=1)
    assert f"threshold {shown}, allowed" in gate_line(bundle, steering, reply)
    enforced = enforced_by(bundle, steering)
    assert enforced is not None and bundle.config is not None
    event = request_event(bundle.config, steering, [], reply)
    assert np.float32(enforced.harm_threshold) == np.float32(event["harm_threshold"]) == np.float32(threshold)
