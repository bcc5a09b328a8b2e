"""A model as judge, behind any endpoint that speaks OpenAI's chat completions."""

import importlib
import os
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from prosocial.editing.errors import InputError
from prosocial.editing.protocols import Judgement, Message

from .rubric import VERSION, read_grades, rubric_messages

KEY_VARIABLE = "PROSOCIAL_JUDGE_KEY"
MAX_TOKENS = 200
# Asking again would help with these; every other status from 400 on is for the user to mend.
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class EndpointJudge:
    """Grades replies with a model.

    A reply that the model did not grade, after all attempts, comes back with `error` set: it counts neither as harmful
    nor as harmless. The key is read from PROSOCIAL_JUDGE_KEY; no other token is ever sent.

    Args:
        url: base address, such as `http://localhost:8000/v1`.
        model: the name that the endpoint knows.
        timeout: seconds for one attempt.
        attempts: how often it is asked about one reply.

    Raises:
        InputError: the address is none, or no attempt is allowed.
    """

    name = "endpoint"

    def __init__(self, url: str, model: str, *, timeout: float = 60.0, attempts: int = 3) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not model:
            raise InputError(f"a judge's endpoint should be an address and a model, found {url!r} and {model!r}")
        if attempts < 1:
            raise InputError(f"a judge should be asked at least once, found {attempts} attempts")
        self.version = f"{model} rubric {VERSION}"
        self._model, self._attempts = model, attempts
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = _http_library().Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply.

        Raises:
            InputError: the endpoint refuses the request as such (a wrong key, model or address).
        """
        httpx = _http_library()
        problem = ""
        for attempt in range(self._attempts):
            try:
                return read_grades(self._ask(messages, reply, seed=attempt))
            except InputError:  # a ValueError too
                raise
            except httpx.TimeoutException:
                problem = "it timed out"
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            except ValueError as error:
                problem = str(error)
        return Judgement(error=f"no grades after {self._attempts} attempts; the last one: {problem}"[:300])

    def _ask(self, messages: Sequence[Message], reply: str, *, seed: int) -> str:
        """Return the text of the answer, empty where the endpoint's JSON holds none."""
        asked = {
            "model": self._model,
            "messages": rubric_messages(messages, reply),
            "temperature": 0.0,
            "max_tokens": MAX_TOKENS,
            "seed": seed,
        }
        found = self._client.post("/chat/completions", json=asked)
        if 400 <= found.status_code < 500 and found.status_code not in PASSING:
            raise InputError(
                f"the judge's endpoint should take the request, it said {found.status_code}: {found.text[:200]}"
            )
        found.raise_for_status()
        try:
            return str(found.json()["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            return ""


def _http_library() -> Any:
    """Return the HTTP library that the Hub's client brings, whichever of its versions uses; it is slow to import."""
    return importlib.import_module("huggingface_hub.utils").httpx
