"""Checks that base and guide share a vocabulary, because guidance adds their logits by token id."""

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError


def require_same_vocabulary(base: ChatTokenizer, guide: ChatTokenizer) -> None:
    """Check that two tokenizers give every token the same id.

    Raises:
        InputError: they differ; the message names both sizes and the first differing token.
    """
    ours, theirs = base.vocabulary(), guide.vocabulary()
    if ours == theirs:
        return
    token = min((token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)), key=str)
    raise InputError(
        f"base and guide should share one vocabulary, found {len(ours)} and {len(theirs)} tokens, and {token!r} as "
        f"{ours.get(token)} and {theirs.get(token)}: use a guide that was trained from the same base"
    )


def require_same_size(base: int, guide: int) -> None:
    """Check that the logits of base and guide have the same width.

    Raises:
        InputError: they differ.
    """
    if base != guide:
        raise InputError(
            f"base and guide should share one vocabulary, found logits of {base} and of {guide} tokens: use a guide "
            "that was trained from the same base"
        )
