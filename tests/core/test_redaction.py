"""Secrets never stand in a message: they are replaced by their kind, whatever form they have."""

import base64

import pytest

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import InputError
from prosocial.core.redaction import redact, secrets_in

from ..recipes.chat_endpoint import Endpoint

TOKEN = "hf_" + "q" * 34
KEY = "my secret/key+1"
SHOWN = {
    "a token": f"invalid token {TOKEN}",
    "a token in a query": f"GET https://host/x?token={TOKEN}&a=1",
    "an unknown token in a query": "https://host/x?access_token=QQQQQQ&a=1",
    "a signed address": "https://s3/x?X-Amz-Signature=QQQQQQ&X-Amz-Credential=QQQQQQ%2F2026",
    "a password in an address": "https://ada:QQQQQQ@host/x",
    "a token as the user": "https://QQQQQQ@host/x",
    "a password of another scheme": "redis://:QQQQQQ@host",
    "a header": "Authorization: Bearer QQQQQQQQ",
    "a header of Azure": "{'api-key': 'QQQQQQ'}",
    "a value of JSON": '{"api_key": "QQQQQQ", "model": "m"}',
    "a variable": "HF_TOKEN=QQQQQQ OPENAI_API_KEY=QQQQQQ",
    "a private key": "-----BEGIN EC PRIVATE KEY-----\nQQQQQQ\n-----END EC PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_secret_is_replaced(name: str) -> None:
    said = redact(SHOWN[name])
    assert "QQQ" not in said and "qqq" not in said and "[" in said
    assert redact(said) == said


def test_known_secrets_go_in_every_form() -> None:
    forms = [KEY, "my%20secret%2Fkey%2B1", base64.b64encode(KEY.encode()).decode()]
    assert redact(" | ".join(forms), known=[KEY, None]) == "[redacted] | [redacted] | [redacted]"


@pytest.mark.parametrize(
    "text",
    [
        "model.sig should have a valid signature: sign it again",
        "the padding token: give pad_token='<pad>'",
        "expected 12 tokens, found https://host:80/v1 and a=b",
        "unknown method 'ppo': known are dpo, sft",
        "error: basic options",
    ],
)
def test_plain_messages_stay(text: str) -> None:
    assert redact(text) == text


def test_secrets_are_named_by_kind() -> None:
    assert secrets_in(f"{TOKEN} redis://:word@host") == ["a Hugging Face token", "a password in an address"]


@pytest.mark.parametrize(
    "url",
    ["https://ada:QQQQQQ@host/v1", "https://QQQQQQ@host/v1", "https://host/v1?api_key=QQQQQQ", "ftp://a:QQQQQQ@h"],
)
def test_an_endpoint_with_a_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError) as refused:
        ChatEndpoint.named(f"model@{url}")
    assert "QQQ" not in str(refused.value)


def test_a_judge_that_refuses_and_repeats_the_key_does_not_show_it() -> None:
    refusing = Endpoint(lambda request: 401, text=f"bad\x1b[31m key: Bearer {KEY} \r\n {TOKEN}!")
    try:
        with pytest.raises(InputError, match="it answered 401") as refused:
            ChatEndpoint(refusing.url, "m", key=KEY).ask([{"role": "user", "content": "hello"}], max_tokens=1)
    finally:
        refusing.close()
    said = str(refused.value)
    assert KEY not in said and "secret" not in said and TOKEN not in said and said.isprintable()
