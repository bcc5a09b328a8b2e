"""A pair of replies to one prompt as token ids."""

from dataclasses import dataclass

from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError


@dataclass(frozen=True)
class EncodedPreference:
    """Two replies to one prompt as token ids.

    Attributes:
        chosen: the prompt with the better reply.
        rejected: the prompt with the worse reply.

    Raises:
        InputError: the prompts differ.
    """

    chosen: EncodedReply
    rejected: EncodedReply

    def __post_init__(self) -> None:
        if self.chosen.prompt_ids != self.rejected.prompt_ids:
            raise InputError("the two replies of a pair should have the same prompt, found two different ones")

    @property
    def length(self) -> int:
        """Number of tokens of the prompt with the longer reply."""
        return max(self.chosen.length, self.rejected.length)
