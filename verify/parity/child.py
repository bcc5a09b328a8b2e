"""The child process that runs a bundle in ONNX Runtime, so that a crash in native code does not end the comparison.

It is started with a bundle folder and the descriptor of a pipe, and answers requests one at a time. Messages are JSON
and numpy arrays, never pickles: the process has run an untrusted graph, and unpickling its output could execute code.
"""

import io
import json
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import MissingExtraError, ProsocialError
from prosocial.export.runtime.bundle import Bundle
from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays

from .engines import StepOutputs
from .graph_margins import GraphMargins
from .graph_points import GraphPoints
from .stepping import SteppingEngine

Arrays = Mapping[str, NDArray[Any]]
PARTS = ("logits", "risk", "safe_set_size")


def pack(arrays: Arrays) -> bytes:
    """Return arrays as the bytes of an npz file.

    Examples:
        >>> unpack(pack({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack(raw: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays that `pack` wrote; pickled objects are refused."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


class Server:
    """Answers requests about one bundle.

    Args:
        folder: bundle folder.
        provider: execution provider of ONNX Runtime.
    """

    def __init__(self, folder: Path, provider: str) -> None:
        self._bundle = Bundle.open(folder, provider=provider)
        self._margins: GraphMargins | None = None

    def open(self) -> Any:
        """Open the bundle, so that its errors are reported before the first prompt."""
        return None, {}

    def replies(self, *, prompts: list[list[int]], max_new_tokens: int, batch_size: int, steering: Any) -> Any:
        """Return greedy replies and their decisions; reply i has arrays `logits_i`, `risk_i`, `safe_set_size_i`."""
        engine = self._engine(steering, batch_size)
        scored = engine.replies(prompts, max_new_tokens=max_new_tokens)
        arrays = {f"{part}_{at}": getattr(one.outputs, part) for at, one in enumerate(scored) for part in PARTS}
        return [one.tokens for one in scored], arrays

    def score(self, *, prompt: list[int], reply: list[int], steering: Any) -> Any:
        """Return the decisions on given tokens, computed one token at a time."""
        return None, _arrays(self._engine(steering, 1).score(prompt, reply))

    def whole(self, *, ids: list[int], n_last: int, steering: Any) -> Any:
        """Return the last `n_last` decisions on given tokens, computed in one pass without a cache."""
        session, tokens = self._bundle.session, np.array([ids], dtype=np.int64)
        results, _ = session.run(tokens, 0, session.new_cache(1, len(ids)), self._controls(steering), n_last)
        logits = results["logits"][0]
        risk = results["risk"][0] if "risk" in results else np.zeros((n_last, 0), np.float32)
        size = results.get("safe_set_size")
        sizes = np.full(n_last, logits.shape[1]) if size is None else size[0]
        return None, _arrays(StepOutputs(logits, risk, sizes))

    def margins(self, *, ids: list[int], n_last: int, steering: Any) -> Any:
        """Return the margins of the last `n_last` decisions."""
        self._margins = self._margins or GraphMargins(self._bundle)
        last = self._margins(ids, n_last, self._controls(steering))
        return None, {"plausibility": last.plausibility, "safety": last.safety}

    def points(self, *, ids: list[int]) -> Any:
        """Return the hidden states at the norms, and the keys and values of each layer."""
        return None, GraphPoints(self._bundle)(ids)

    def _engine(self, steering: Any, batch_size: int) -> SteppingEngine:
        ends = self._bundle.tokenizer.end_ids
        controls = None if steering is None else Steering(**steering)
        return SteppingEngine(self._bundle.engine, name="", end_ids=ends, steering=controls, batch_size=batch_size)

    def _controls(self, steering: Any) -> ControlArrays | None:
        config = self._bundle.config
        return None if steering is None or config is None else control_arrays(config, [Steering(**steering)])


def serve(folder: Path, connection: Connection, provider: str) -> None:
    """Open a bundle and answer requests until the other side closes the connection."""
    server: Server | None = None
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            server = server or Server(folder, provider)
            method: Callable[..., Any] = getattr(server, request.pop("method"))
            answer, arrays = method(**request)
        except MissingExtraError as error:
            connection.send_bytes(json.dumps({"missing": str(error)}).encode())
        except ProsocialError as error:
            connection.send_bytes(json.dumps({"error": type(error).__name__, "text": str(error)}).encode())
        except Exception as error:  # onnxruntime's own errors have no common base below Exception
            connection.send_bytes(json.dumps({"failed": " ".join(str(error).split())[:500]}).encode())
        else:
            connection.send_bytes(json.dumps({"said": answer}).encode())
            connection.send_bytes(pack(arrays))


def _arrays(outputs: StepOutputs) -> dict[str, NDArray[Any]]:
    return {part: getattr(outputs, part) for part in PARTS}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Connection(int(sys.argv[2])), sys.argv[3])
