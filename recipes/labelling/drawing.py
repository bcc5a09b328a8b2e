"""Draws replies that something is trained on, row by row into a file: a killed run goes on with the rows it has."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.chat_endpoint import ChatEndpoint, NoAnswerError
from prosocial.core.equal_lengths import equal_length_batches
from prosocial.core.errors import InputError
from prosocial.core.files import read_json
from prosocial.core.progress import SILENT, Progress
from prosocial.core.protocols import Message
from prosocial.steering.decoding.batch_size import replies_at_once
from prosocial.training.reply_sampling import ReplySampling

Drawn = tuple[int, str, int]  # index of the conversation, text of the reply, number of its tokens
TRIES, WAIT_SECONDS = 4, 1.0  # a server may be busy or just starting
REQUESTS_AT_ONCE = 32
SEED_STEP = 1_000_003  # so that the seeds of two draws share no row


class ReplySampler(Protocol):
    """Draws one reply to each of some conversations; a reply depends only on its conversation, its index and a seed."""

    def draw(self, conversations: Sequence[Sequence[Message]], indices: Sequence[int], *, seed: int) -> Iterable[Drawn]:
        """Yield the replies to the conversations at the given indices, in any order."""
        ...


def draw_replies(
    sampler: ReplySampler,
    conversations: Sequence[Sequence[Message]],
    *,
    path: Path,
    seed: int,
    progress: Progress = SILENT,
) -> list[str]:
    """Return one reply per conversation, from `path` those that an earlier process drew.

    Args:
        sampler: draws the missing ones.
        conversations: the conversations.
        path: JSONL file, one row per reply; whoever names it takes care that conversations, sampler and seed are the
            same whenever the file is.
        seed: seed of the replies.
        progress: receives the number of replies and of their tokens.

    Raises:
        InputError: the sampler cannot draw; the rows so far are kept.
    """
    rows = AppendedRows(path)
    replies = {int(row["index"]): str(row["reply"]) for row in rows.rows}
    missing = [index for index in range(len(conversations)) if index not in replies]
    kept = f", {len(replies)} of them kept from an earlier run" if replies and missing else ""
    progress.start(len(conversations), f"sample {len(conversations)} replies{kept}")
    progress.advance(len(replies))
    if missing:
        for index, text, n_tokens in sampler.draw(conversations, missing, seed=seed):
            rows.append({"index": index, "reply": text})
            replies[index] = text
            progress.advance(tokens=n_tokens)
    return [replies[index] for index in range(len(conversations))]


@dataclass(frozen=True)
class EndpointSampler:
    """Draws replies from a server with OpenAI's chat completions API that serves the very model of a checkpoint.

    Attributes:
        endpoint: the server and the name of the model there.
        sampling: temperature and length.
    """

    endpoint: ChatEndpoint
    sampling: ReplySampling

    def draw(self, conversations: Sequence[Sequence[Message]], indices: Sequence[int], *, seed: int) -> Iterator[Drawn]:
        """Yield replies as they arrive; the first one is drawn alone, so that a server that is not there costs little.

        Raises:
            InputError: the server does not answer, or rejects a request.
        """

        def one(index: int) -> Drawn:
            return index, *self._ask(conversations[index], seed=seed * SEED_STEP + index)

        yield one(indices[0])
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            running = [pool.submit(one, index) for index in indices[1:]]
            try:
                for done in as_completed(running):
                    yield done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, messages: Sequence[Message], *, seed: int) -> tuple[str, int]:
        how, problem = self.sampling, ""
        for attempt in range(TRIES):
            try:
                answer = self.endpoint.answer(
                    messages, max_tokens=how.max_new_tokens, temperature=how.temperature, seed=seed
                )
            except NoAnswerError as error:
                problem = str(error)
                time.sleep(WAIT_SECONDS * attempt)
            else:
                return answer.text, answer.n_tokens
        raise InputError(
            f"the sampler at {self.endpoint.url} should answer as {self.endpoint.model}: {problem}; serve the model "
            "there and run again, the replies so far are kept"
        )


@dataclass(frozen=True)
class LocalSampler:
    """Draws replies from an unsteered checkpoint in this process; the model is loaded when it is needed.

    Attributes:
        checkpoint: folder of the checkpoint.
        open_model: loads it.
        sampling: temperature and length.
    """

    checkpoint: Path
    open_model: Callable[[Path], object]
    sampling: ReplySampling

    def draw(self, conversations: Sequence[Sequence[Message]], indices: Sequence[int], *, seed: int) -> Iterator[Drawn]:
        """Yield replies batch by batch: prompts of one length, as many as the memory of their caches and logits allows.

        Raises:
            InputError: a prompt exceeds the context.
        """
        from prosocial.core.chat import ChatTokenizer
        from prosocial.steering.decoding.loop import generate
        from prosocial.steering.torch_engine import PlainEngine

        tokenizer, config = ChatTokenizer(self.checkpoint), read_json(self.checkpoint / "config.json", finite=False)
        lengths = [len(tokenizer.encode_chat(conversations[index])) for index in indices]
        longest = self.sampling.max_new_tokens
        engine = PlainEngine(self.open_model(self.checkpoint))  # type: ignore[arg-type]  # no torch is imported here
        for batch in equal_length_batches(lengths, lambda length: replies_at_once(config, length + longest)):
            rows = [indices[at] for at in batch]
            replies = generate(
                engine,
                tokenizer,
                [conversations[index] for index in rows],
                **self.sampling.model_dump(),
                seed=seed,
                row_keys=[str(index) for index in rows],
                batch_size=len(rows),
            )
            yield from ((index, one.text, len(one.token_ids)) for index, one in zip(rows, replies, strict=True))
