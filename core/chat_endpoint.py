"""A chat model behind any endpoint that speaks OpenAI's chat completions (torch-free)."""

import importlib
import os
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from .errors import InputError, ProsocialError
from .protocols import Message

KEY_VARIABLE = "PROSOCIAL_JUDGE_KEY"
# Asking again would help with these; every other status from 400 on is for the user to mend.
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class NoAnswerError(ProsocialError):
    """An endpoint did not answer; asking again may help."""


class ChatEndpoint:
    """Asks a model. No token but the given key is ever sent, the user's own of the Hub least of all.

    Args:
        url: base address, such as `http://localhost:8000/v1`.
        model: the name that the endpoint knows.
        key: sent as it is; None: none.
        timeout: seconds for one request.

    Raises:
        InputError: the address is none, or there is no model.
    """

    def __init__(self, url: str, model: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not model:
            raise InputError(f"an endpoint should be MODEL@URL, a model at an address, found {model!r} and {url!r}")
        self.url, self.model = url, model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._library = _http_library()
        self._client = self._library.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)

    @classmethod
    def named(cls, name: str, *, timeout: float = 60.0) -> Self:
        """Return the endpoint of `MODEL@URL`; its key is in the environment as `PROSOCIAL_JUDGE_KEY`, if it has one.

        Raises:
            InputError: the name is none such.
        """
        model, _, url = name.partition("@")
        return cls(url, model, key=os.environ.get(KEY_VARIABLE), timeout=timeout)

    def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> str:
        """Return the text of the likeliest answer, empty where the endpoint's JSON holds none.

        Raises:
            InputError: the endpoint refuses the request as such (a wrong key, model or address).
            NoAnswerError: it timed out, is gone, busy or broken.
        """
        asked = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0.0,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        try:
            found = self._client.post("/chat/completions", json=asked)
        except self._library.TimeoutException:
            raise NoAnswerError("it timed out") from None
        except (self._library.HTTPError, self._library.InvalidURL) as error:
            raise NoAnswerError(f"{type(error).__name__}: {error}") from None
        if 400 <= found.status_code < 500 and found.status_code not in PASSING:
            raise InputError(f"{self.url} should take the request, it said {found.status_code}: {found.text[:200]}")
        if found.status_code != HTTPStatus.OK:
            raise NoAnswerError(f"it said {found.status_code}")
        return _text(found)


def _text(found: Any) -> str:
    try:
        return str(found.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _http_library() -> Any:
    """Return the HTTP library that the Hub's client brings, whichever of its versions uses; it is slow to import."""
    return importlib.import_module("huggingface_hub.utils").httpx
