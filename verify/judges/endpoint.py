"""A model as judge, behind any endpoint that speaks OpenAI's chat completions."""

from collections.abc import Sequence

from prosocial.editing.chat_endpoint import ChatEndpoint, NoAnswerError
from prosocial.editing.errors import InputError
from prosocial.editing.protocols import Judgement, Message

from .rubric import VERSION, read_grades, rubric_messages

MAX_TOKENS = 200


class EndpointJudge:
    """Grades replies with a model.

    A reply that the model did not grade, after all attempts, comes back with `error` set: it counts neither as harmful
    nor as harmless.

    Args:
        endpoint: to ask.
        attempts: how often it is asked about one reply.

    Raises:
        InputError: no attempt is allowed.
    """

    name = "endpoint"

    def __init__(self, endpoint: ChatEndpoint, *, attempts: int = 3) -> None:
        if attempts < 1:
            raise InputError(f"a judge should be asked at least once, found {attempts} attempts")
        self.version = f"{endpoint.model} rubric {VERSION}"
        self._attempts, self._endpoint = attempts, endpoint

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply.

        Raises:
            InputError: the endpoint refuses the request as such (a wrong key, model or address).
        """
        asked, problem = rubric_messages(messages, reply), ""
        for attempt in range(self._attempts):
            try:
                answer = self._endpoint.ask(asked, max_tokens=MAX_TOKENS, seed=attempt)
            except NoAnswerError as error:
                problem = str(error)
                continue
            try:
                return read_grades(answer)
            except ValueError as error:
                problem = str(error)
        return Judgement(error=f"no grades after {self._attempts} attempts; the last one: {problem}"[:300])
