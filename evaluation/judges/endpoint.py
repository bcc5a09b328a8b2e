"""A model as judge, behind any endpoint that speaks OpenAI's chat completions."""

from collections.abc import Sequence

from prosocial.core.chat_endpoint import ChatEndpoint, NoAnswerError
from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message

from .rubric import STRONG_REJECT, Rubric

MAX_TOKENS = 200


class EndpointJudge:
    """Grades replies with a model.

    A reply that the model did not grade, after all attempts, comes back with `error` set: it counts neither as harmful
    nor as harmless.

    Args:
        endpoint: to ask.
        attempts: how often it is asked about one reply.
        rubric: what it is asked, and what its answer means.

    Raises:
        InputError: no attempt is allowed.
    """

    name = "endpoint"

    def __init__(self, endpoint: ChatEndpoint, *, attempts: int = 3, rubric: Rubric = STRONG_REJECT) -> None:
        if attempts < 1:
            raise InputError(f"a judge should be asked at least once, found {attempts} attempts")
        self.version = f"{endpoint.model} rubric {rubric.version}"
        self._endpoint, self._attempts, self._rubric = endpoint, attempts, rubric

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply.

        Raises:
            InputError: the endpoint refuses the request as such (a wrong key, model or address).
        """
        asked, problem = self._rubric.messages(messages, reply), ""
        for attempt in range(self._attempts):
            try:
                answer = self._endpoint.ask(asked, max_tokens=MAX_TOKENS, seed=attempt)
            except NoAnswerError as error:
                problem = str(error)
                continue
            try:
                return self._rubric.read(answer)
            except ValueError as error:
                problem = str(error)
        return Judgement(error=f"no grades after {self._attempts} attempts; the last one: {problem}"[:300])
