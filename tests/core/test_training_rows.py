"""Training rows of TRL, ShareGPT and UltraFeedback are read as this package's own, or refused in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import InputError
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import pair_of, prompt_of, reply_of

Turn = dict[str, Any]


def user(text: Any) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: Any) -> Turn:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "be kind"}
ASKED = (user("hello"),)
LONG = [SYSTEM, user("hello"), assistant("hi"), user("how are you")]
PARTS = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]

PROMPTS: dict[str, tuple[dict[str, Any], list[Turn]]] = {
    "a text": ({"prompt": "hello"}, [*ASKED]),
    "a list": ({"prompt": [user("hello")]}, [*ASKED]),
    "a list with a system turn": ({"prompt": [SYSTEM, user("hello")]}, [SYSTEM, *ASKED]),
    "messages": ({"messages": LONG}, LONG),
    "messages beside the id of a prompt": ({"prompt": "17", "messages": LONG}, LONG),
    "the rest of UltraFeedback": ({"prompt": "hello", "messages": [user("hello"), assistant("hi")]}, [*ASKED]),
    "a null beside": ({"prompt": None, "messages": [user("hello")], "score": 3}, [*ASKED]),
    "parts of text": ({"messages": [user(PARTS)]}, [*ASKED]),
    "a system text beside a prompt": ({"system": "be kind", "prompt": "hello"}, [SYSTEM, *ASKED]),
    "a system text beside messages": ({"system": "be kind", "messages": [user("hello")]}, [SYSTEM, *ASKED]),
    "a system text that the messages have too": ({"system": "be kind", "messages": LONG}, LONG),
    "an empty system text": ({"system": "", "prompt": "hello"}, [*ASKED]),
    "columns of Arrow": ({"messages": [user("hello") | {"name": None, "tool_calls": None, "weight": 1}]}, [*ASKED]),
}
REPLIES: dict[str, tuple[dict[str, Any], list[Turn], str]] = {
    "its own": ({"messages": LONG, "reply": "well"}, LONG, "well"),
    "a text prompt": ({"prompt": "hello", "reply": "hi"}, [*ASKED], "hi"),
    "prompt and completion": ({"prompt": "hello", "completion": " hi"}, [*ASKED], " hi"),
    "prompt and completion in lists": ({"prompt": LONG, "completion": [assistant("well")]}, LONG, "well"),
    "a completion of several turns": (
        {"prompt": [user("hello")], "completion": [assistant("hi"), user("how are you"), assistant("well")]},
        [user("hello"), assistant("hi"), user("how are you")],
        "well",
    ),
    "messages": ({"messages": [*LONG, assistant("well")]}, LONG, "well"),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]},
        [*ASKED],
        "hi",
    ),
    "ShareGPT with its system text": (
        {"system": "be kind", "conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]},
        [SYSTEM, *ASKED],
        "hi",
    ),
    "conversations with roles": ({"conversations": [user("hello"), assistant("hi")]}, [*ASKED], "hi"),
    "UltraFeedback": (
        {"prompt": "hello", "messages": [user("hello"), assistant("hi")], "chosen": [], "score_chosen": 5.0},
        [*ASKED],
        "hi",
    ),
    "an empty reply": ({"prompt": "hello", "reply": ""}, [*ASKED], ""),
}
WHOLE = {"chosen": [*LONG, assistant("well")], "rejected": [*LONG, assistant("no")]}
PAIRS: dict[str, tuple[dict[str, Any], list[Turn]]] = {
    "its own for rewards": ({"prompt": "hello", "first": "well", "second": "no"}, [*ASKED]),
    "replies in lists": (
        {"prompt": "hello", "first": [assistant("well")], "second": [assistant("no")]},
        [*ASKED],
    ),
    "its own for tuning": ({"messages": LONG, "chosen": "well", "rejected": "no"}, LONG),
    "CoSAlign's": ({"prompt": "17", "messages": LONG, "chosen": "well", "rejected": "no"}, LONG),
    "text": ({"prompt": "hello", "chosen": "well", "rejected": "no"}, [*ASKED]),
    "an explicit prompt": ({"prompt": LONG, "chosen": [assistant("well")], "rejected": [assistant("no")]}, LONG),
    "an implicit prompt": (WHOLE, LONG),
    "UltraFeedback": ({"prompt": "hello", "messages": WHOLE["chosen"]} | WHOLE, LONG),
    "an explicit prompt, repeated": ({"prompt": LONG} | WHOLE, LONG),
    "a system text beside whole conversations": (
        {"system": "be kind", "chosen": [*ASKED, assistant("well")], "rejected": [*ASKED, assistant("no")]},
        [SYSTEM, *ASKED],
    ),
    "a system text beside a prompt": (
        {"system": "be kind", "prompt": "hello", "chosen": "well", "rejected": [assistant("no")]},
        [SYSTEM, *ASKED],
    ),
    "ShareGPT in both": (
        {
            key: [{"from": "human", "value": "hello"}, {"from": "gpt", "value": text}]
            for key, text in {"chosen": "well", "rejected": "no"}.items()
        },
        [*ASKED],
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_in_every_format(name: str) -> None:
    row, expected = PROMPTS[name]
    assert prompt_of(row, where="row 1") == tuple(expected)


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_in_every_format(name: str) -> None:
    row, expected, reply = REPLIES[name]
    assert reply_of(row, where="row 1") == (tuple(expected), reply)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_in_every_format(name: str) -> None:
    row, expected = PAIRS[name]
    assert pair_of(row, where="row 1") == (tuple(expected), "well", "no")


def with_reply(**row: Any) -> dict[str, Any]:
    return {"prompt": "hello", "reply": "hi"} | row


TOOL = assistant("") | {"tool_calls": [{"function": {"name": "f"}}]}
REFUSED: dict[str, tuple[Callable[..., object], dict[str, Any], str]] = {
    "no prompt": (prompt_of, {"text": "once upon a time"}, "should hold a prompt"),
    "an answered conversation as a prompt": (prompt_of, {"messages": [*LONG, assistant("x")]}, "of the user"),
    "a number as a prompt": (prompt_of, {"prompt": 7}, "prompt should be a list"),
    "an empty list": (prompt_of, {"prompt": []}, "at least one message"),
    "a message that is a text": (prompt_of, {"messages": ["hello"]}, "role and content"),
    "a role of tools": (prompt_of, {"messages": [{"role": "tool", "content": "7"}]}, "found 'tool'"),
    "a role that is a list": (prompt_of, {"messages": [{"role": ["user"], "content": "7"}]}, "should have a role"),
    "a picture": (prompt_of, {"messages": [user([{"type": "image"}])]}, "a text as its content"),
    "a null as content": (prompt_of, {"messages": [user(None)]}, "a text as its content"),
    "a picture in a column": (prompt_of, {"prompt": "hello", "images": ["a.png"]}, "found images"),
    "tools in a column": (prompt_of, {"prompt": "hello", "tools": [{"name": "f"}]}, "found tools"),
    "tool calls": (reply_of, {"messages": [user("hello"), TOOL]}, "found tool_calls"),
    "reasoning beside the reply": (
        reply_of,
        {"messages": [user("hello"), assistant("hi") | {"reasoning_content": "hm"}]},
        "found reasoning_content",
    ),
    "a system text that is a list": (prompt_of, {"system": ["be kind"], "prompt": "hello"}, "system should be a text"),
    "settings of the template": (reply_of, with_reply(chat_template_kwargs={"enable_thinking": False}), "found chat_t"),
    "the JSON of a list as a reply": (reply_of, with_reply(reply=json.dumps([assistant("hi")])), "parse it"),
    "the text of a Python list as a prompt": (prompt_of, {"prompt": str([user("hello")])}, "parse it"),
    "the text of a list in a pair": (pair_of, {"prompt": "a", "chosen": str(LONG), "rejected": "b"}, "parse it"),
    "KTO's from a column of numbers": (reply_of, with_reply(label=0), "unpaired preference"),
    "no reply": (reply_of, {"prompt": "hello"}, "should hold a reply"),
    "a null reply": (reply_of, with_reply(reply=None), "should hold a reply"),
    "a reply that is a list of texts": (reply_of, with_reply(reply=["hi"]), "role and content"),
    "a number as a reply": (reply_of, with_reply(reply=3), "reply should be a text or a list"),
    "an empty completion": (reply_of, {"prompt": "hello", "completion": []}, "at least one message"),
    "a conversation that nobody answers": (reply_of, {"messages": LONG}, "should end in a message of the assistant"),
    "a reply to nothing": (reply_of, {"messages": [assistant("hi")]}, "the reply only"),
    "KTO's": (reply_of, {"prompt": "hello", "completion": "hi", "label": False}, "unpaired preference"),
    "a pair for replies": (reply_of, {"chosen": [user("a"), assistant("b")]}, "should hold a reply"),
    "half a pair": (pair_of, {"prompt": "hello", "chosen": "hi"}, "missing rejected"),
    "a null in a pair": (pair_of, {"prompt": "hello", "chosen": "hi", "rejected": None}, "missing rejected"),
    "no pair": (pair_of, {"prompt": "hello", "reply": "hi"}, "first and second, or chosen and rejected"),
    "texts without a prompt": (pair_of, {"chosen": "sky is blue", "rejected": "sky is green"}, "a prompt"),
    "replies to two conversations": (
        pair_of,
        {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]},
        "reply to two",
    ),
    "another prompt beside whole conversations": (pair_of, WHOLE | {"prompt": "bye"}, "another conversation"),
    "another list beside whole conversations": (pair_of, WHOLE | {"prompt": [user("bye")]}, "another conversation"),
    "the same reply twice": (pair_of, {"prompt": "hello", "chosen": "x", "rejected": [assistant("x")]}, "different"),
    "a pair that ends in the user": (pair_of, {"chosen": LONG, "rejected": LONG}, "end in a message of the assistant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_with_its_row(name: str) -> None:
    read, row, reason = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(reason)) as refused:
        read(row, where="rows.jsonl row 3")
    said = str(refused.value)
    assert said.startswith("rows.jsonl row 3") and "\n" not in said and len(said) < 300


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "folder"])
def test_rows_are_read_from_every_file_alike(form: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "one\u2028two", "reply": "x"}, {"prompt": "three\x85", "reply": None}]
    path = tmp_path / f"rows.{form}"
    if form == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    elif form == "json":
        path.write_text("\ufeff" + json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif form == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))

    assert read_rows(path) == rows


def test_files_that_hold_no_rows_are_one_line(tmp_path: Path) -> None:
    contents = {"a.jsonl": b"\n \n", "a.json": b"[]", "b.json": b"[1]", "a.parquet": b"PAR1", "c.json": b"[{}"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(name)) as refused:
            read_rows(tmp_path / name)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="saved data set"):
        read_rows(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        read_rows(tmp_path / "none.parquet")
