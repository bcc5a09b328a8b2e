"""A model as judge, behind any endpoint with OpenAI's chat completions API."""

from collections.abc import Sequence

from prosocial.core.chat_endpoint import ChatEndpoint, NoAnswerError
from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message

from .rubric import STRONG_REJECT, Rubric

MAX_TOKENS = 200


class EndpointJudge:
    """Grades replies with a model.

    If all attempts fail, the judgement has `error` set and counts as neither harmful nor harmless.

    Args:
        endpoint: endpoint of the judging model.
        attempts: most requests per reply.
        rubric: instructions for the model and the parser of its answer.

    Raises:
        InputError: `attempts` is below 1.
    """

    name = "endpoint"

    def __init__(self, endpoint: ChatEndpoint, *, attempts: int = 3, rubric: Rubric = STRONG_REJECT) -> None:
        if attempts < 1:
            raise InputError(f"a judge should have at least 1 attempt, found {attempts}")
        self.version = f"{endpoint.model} rubric {rubric.version}"
        self._endpoint, self._attempts, self._rubric = endpoint, attempts, rubric

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply.

        Raises:
            InputError: the endpoint rejects the request (wrong key, model or address).
        """
        conversation, problem = self._rubric.messages(messages, reply), ""
        for attempt in range(self._attempts):
            try:
                answer = self._endpoint.ask(conversation, max_tokens=MAX_TOKENS, seed=attempt)
            except NoAnswerError as error:
                problem = str(error)
                continue
            try:
                return self._rubric.read(answer)
            except ValueError as error:
                problem = str(error)
        return Judgement(error=f"no grades after {self._attempts} attempts; the last one: {problem}"[:300])
