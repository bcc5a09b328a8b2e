"""A client for chat models behind an endpoint with OpenAI's chat completions API (torch-free)."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from .errors import InputError, ProsocialError
from .protocols import Message
from .redaction import redact

KEY_VARIABLE = "PROSOCIAL_JUDGE_KEY"
# A retry can help with these; for every other 4xx status the user has to change the request.
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class NoAnswerError(ProsocialError):
    """An endpoint did not answer; a retry may help."""


@dataclass(frozen=True)
class ChatAnswer:
    """An answer: its text, empty if the response holds none, and its number of tokens, 0 if it is not reported."""

    text: str
    n_tokens: int = 0


class ChatEndpoint:
    """A client for one chat model; it sends no credential except the given key, and never the user's Hub token.

    Args:
        url: base URL, such as `http://localhost:8000/v1`.
        model: name of the model at the endpoint.
        key: API key, sent as a bearer token; None sends none.
        timeout: time limit of one request in seconds.

    Raises:
        InputError: `url` is not an HTTP URL, has a password or parameters, or `model` is empty.
    """

    def __init__(self, url: str, model: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not model:
            raise InputError(
                "an endpoint should be MODEL@URL with an http or https URL, "
                f"found model {model!r} and URL {redact(url)!r}"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise InputError(
                f"the URL of an endpoint should have no password and no parameters, found {redact(url)}: put the key "
                f"into the variable {KEY_VARIABLE}"
            )
        self.url, self.model, self._key = url, model, key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._library = _http_library()
        self._client = self._library.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)

    @classmethod
    def named(cls, name: str, *, timeout: float = 60.0) -> Self:
        """Return the endpoint named `MODEL@URL`; its key, if any, comes from the variable `PROSOCIAL_JUDGE_KEY`.

        Raises:
            InputError: `name` does not have this form.
        """
        model, _, url = name.partition("@")
        return cls(url, model, key=os.environ.get(KEY_VARIABLE), timeout=timeout)

    def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> str:
        """Return the text of `answer` at temperature 0; an empty one if the response holds none."""
        return self.answer(messages, max_tokens=max_tokens, seed=seed).text

    def answer(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> "ChatAnswer":
        """Return the model's answer.

        Args:
            messages: the conversation.
            max_tokens: largest number of tokens of the answer.
            temperature: sampling temperature; 0 is greedy.
            seed: sampling seed, for endpoints that use one.

        Raises:
            InputError: the endpoint rejects the request (a wrong key, model or URL).
            NoAnswerError: the endpoint timed out, is unreachable, is busy or failed.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        try:
            response = self._client.post("/chat/completions", json=body)
        except self._library.TimeoutException:
            raise NoAnswerError("it timed out") from None
        except (self._library.HTTPError, self._library.InvalidURL) as error:
            raise NoAnswerError(self._shown(f"{type(error).__name__}: {error}")) from None
        status = response.status_code
        if 400 <= status < 500 and status not in PASSING:
            raise InputError(
                f"{self.url} should accept the request, it answered {status}: {self._shown(response.text)}; "
                "check model, URL and key"
            )
        if status != HTTPStatus.OK:
            raise NoAnswerError(f"it answered {status}")
        return ChatAnswer(_text(response), _n_tokens(response))

    def _shown(self, text: str) -> str:
        """Return the start of an answer as one line without secrets: servers repeat keys and headers in errors."""
        line = " ".join(redact(text[:10_000], known=[self._key]).split())
        return "".join(letter for letter in line if letter.isprintable())[:200]


def _text(response: Any) -> str:
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _n_tokens(response: Any) -> int:
    try:
        return int(response.json()["usage"]["completion_tokens"])
    except (ValueError, KeyError, TypeError):
        return 0


def _http_library() -> Any:
    """Return the HTTP library that the installed Hub client uses; it is imported late because it is slow to import."""
    return importlib.import_module("huggingface_hub.utils").httpx
