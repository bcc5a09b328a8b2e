"""A bundle in a child process, so that a crash of ONNX Runtime becomes a failed gate and not the end of the program."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prosocial.core import errors
from prosocial.steering.decoding.controls import Steering

from .batches import MOST_ROWS
from .child import PARTS, unpack
from .engines import Margins, ScoredReply, StepOutputs

MODULE = "prosocial.verify.parity.child"
Arrays = Mapping[str, NDArray[Any]]


class EngineFailure(Exception):  # noqa: N818 - a verdict, not an error
    """The bundle could not be run: ONNX Runtime crashed or raised an error."""


class RemoteBundle:
    """Sends requests to the child process of one bundle."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Any) -> None:
        self._process, self._connection = process, connection

    def call(self, method: str, **arguments: Any) -> tuple[Any, Arrays]:
        """Call a method of the server in the child process, and return its JSON answer and its arrays.

        Raises:
            EngineFailure: the process died, or ONNX Runtime raised an error.
            ProsocialError: the error that the bundle's loader raised in the child process.
        """
        try:
            self._connection.send_bytes(json.dumps({"method": method, **arguments}).encode())
            answer = json.loads(self._connection.recv_bytes())
            if "said" in answer:
                return answer["said"], unpack(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise EngineFailure(f"the process that ran ONNX Runtime died with {how}") from None
        if "missing" in answer:
            raise errors.MissingExtraError("onnxruntime", "cpu")
        if "error" in answer:
            raise getattr(errors, answer["error"], errors.InputError)(answer["text"])
        raise EngineFailure(f"ONNX Runtime failed: {answer['failed']}")


@contextlib.contextmanager
def remote_bundle(folder: Path, provider: str = "cpu") -> Iterator[RemoteBundle]:
    """Start a child process for a bundle on an execution provider; it ends with the `with` block."""
    here, there = Pipe()
    with here, there:
        command = [sys.executable, "-m", MODULE, str(folder.resolve()), str(there.fileno()), provider]
        process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        there.close()
        try:
            yield RemoteBundle(process, here)
        finally:
            here.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class RemoteEngine:
    """A bundle under one steering, run in the child process.

    Args:
        bundle: the child process.
        name: name for the report.
        steering: steering of every request; None for the defaults of the graph.
        has_margins: whether the bundle has a gate, so that margins can be computed.
    """

    def __init__(
        self, bundle: RemoteBundle, *, name: str, steering: Steering | None = None, has_margins: bool = False
    ) -> None:
        self.name, self._bundle, self._has_margins = name, bundle, has_margins
        self._steering = None if steering is None else asdict(steering)

    def replies(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, batch_size: int = MOST_ROWS
    ) -> list[ScoredReply]:
        """Return the greedy reply to each prompt, and its decisions."""
        ids = [list(prompt) for prompt in prompts]
        arguments = {"prompts": ids, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
        tokens, arrays = self._bundle.call("replies", **arguments, steering=self._steering)
        scored = []
        for at, reply in enumerate(tokens):
            parts = {part: arrays[f"{part}_{at}"] for part in PARTS}
            scored.append(ScoredReply(reply, _outputs(parts, self._margins([*ids[at], *reply[:-1]], len(reply)))))
        return scored

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply, through the cache."""
        arguments = {"prompt": list(prompt), "reply": list(reply)}
        _, arrays = self._bundle.call("score", **arguments, steering=self._steering)
        return _outputs(arrays, margins=self._margins([*prompt, *reply], len(reply) + 1))

    def whole(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the same decisions as `score`, computed in one pass over all tokens."""
        arguments = {"ids": [*prompt, *reply], "n_last": len(reply) + 1}
        _, arrays = self._bundle.call("whole", **arguments, steering=self._steering)
        return _outputs(arrays)

    def points(self, ids: Sequence[int]) -> Arrays:
        """Return the hidden states at the norms, and the keys and values of each layer."""
        return self._bundle.call("points", ids=list(ids))[1]

    def _margins(self, ids: list[int], n_last: int) -> Callable[[], Margins] | None:
        return partial(self._ask_margins, ids, n_last) if self._has_margins else None

    def _ask_margins(self, ids: list[int], n_last: int) -> Margins:
        return Margins(**self._bundle.call("margins", ids=ids, n_last=n_last, steering=self._steering)[1])


def _outputs(arrays: Arrays, margins: Callable[[], Margins] | None = None) -> StepOutputs:
    return StepOutputs(arrays["logits"], arrays["risk"], arrays["safe_set_size"], margins)
