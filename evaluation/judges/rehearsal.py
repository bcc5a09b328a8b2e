"""Trial judgements before replies are drawn, so that a judge that cannot work is refused before the slow part."""

from collections.abc import Sequence

from prosocial.core.errors import InputError
from prosocial.core.protocols import Judge, Judgement, Message

TRIAL_REPLY = "That sounds hard. Would it help to talk it through with someone you trust?"
TRIES = 3  # a judge may fail on one conversation and work on others


def rehearse(
    judge: Judge, conversations: Sequence[Sequence[Message]], *, attributes: Sequence[str] = ()
) -> Judgement | None:
    """Return the judgement of a made-up reply, and raise unless the judge says what it will be needed for.

    Args:
        judge: the judge.
        conversations: conversations that replies will be drawn to; the judge has to work on one of the first three.
        attributes: names of the attributes that the judge has to score.

    Returns:
        The first judgement without a fault; None without conversations.

    Raises:
        InputError: the judge cannot be reached, or on every trial returns an error or leaves out an attribute.

    Examples:
        >>> from prosocial.evaluation.judges import RefusalJudge
        >>> rehearse(RefusalJudge(), [[{"role": "user", "content": "I feel alone."}]]).refusal
        'none'
    """
    problems: list[str] = []
    for messages in conversations[:TRIES]:
        judgement = judge.judge(messages, TRIAL_REPLY)
        problem = _problem(judgement, attributes)
        if problem is None:
            return judgement
        problems.append(problem)
    if problems:
        raise InputError(
            f"judge {judge.name} {judge.version} should judge a trial reply before any is drawn: {problems[0]}; check "
            "it, or choose another judge"
        )
    return None


def _problem(judgement: Judgement, attributes: Sequence[str]) -> str | None:
    missing = [name for name in attributes if name not in judgement.attributes]
    return judgement.error or (f"it gave no score for {', '.join(missing)}" if missing else None)
