"""The process that runs a bundle in ONNX Runtime: a crash in native code ends this process, not the comparison.

It is started with a bundle and the descriptor of a pipe, and answers one request after the other. Messages are JSON and
numpy arrays, never pickles: what comes out of a process that an untrusted graph ran in is not to be executed.
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

    Example:
        >>> unpack(pack({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack(raw: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of `pack`; nothing but numbers is read."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


class Server:
    """Answers requests about one bundle.

    Args:
        folder: of the bundle.
    """

    def __init__(self, folder: Path) -> None:
        self._bundle = Bundle.open(folder)
        self._margins: GraphMargins | None = None

    def open(self) -> Any:
        """Open the bundle and nothing more."""
        return None, {}

    def replies(self, *, prompts: list[list[int]], max_new_tokens: int, batch_size: int, steering: Any) -> Any:
        """Return the most likely replies, and the decisions on the way, those of reply i as `logits_i` and so on."""
        engine = self._engine(steering, batch_size)
        found = engine.replies(prompts, max_new_tokens=max_new_tokens)
        arrays = {f"{part}_{at}": getattr(one.outputs, part) for at, one in enumerate(found) for part in PARTS}
        return [one.tokens for one in found], arrays

    def score(self, *, prompt: list[int], reply: list[int], steering: Any) -> Any:
        """Return the decisions on given tokens, step by step."""
        return None, _arrays(self._engine(steering, 1).score(prompt, reply))

    def whole(self, *, ids: list[int], n_last: int, steering: Any) -> Any:
        """Return the last decisions on given tokens, all of them read in one pass without a cache."""
        session, tokens = self._bundle.session, np.array([ids], dtype=np.int64)
        results, _ = session.run(tokens, 0, session.new_cache(1, len(ids)), self._controls(steering))
        logits = results["logits"][0, -n_last:]
        risk = results["risk"][0, -n_last:] if "risk" in results else np.zeros((n_last, 0), np.float32)
        size = results.get("safe_set_size")
        sizes = np.full(n_last, logits.shape[1]) if size is None else size[0, -n_last:]
        return None, _arrays(StepOutputs(logits, risk, sizes))

    def margins(self, *, ids: list[int], n_last: int, steering: Any) -> Any:
        """Return the margins of the last decisions."""
        self._margins = self._margins or GraphMargins(self._bundle)
        found = self._margins(ids, n_last, self._controls(steering))
        return None, {"plausibility": found.plausibility, "safety": found.safety}

    def points(self, *, ids: list[int]) -> Any:
        """Return what passes by on the way through the layers."""
        return None, GraphPoints(self._bundle)(ids)

    def _engine(self, steering: Any, batch_size: int) -> SteppingEngine:
        ends = self._bundle.tokenizer.end_ids
        asked = None if steering is None else Steering(**steering)
        return SteppingEngine(self._bundle.engine, name="", end_ids=ends, steering=asked, batch_size=batch_size)

    def _controls(self, steering: Any) -> ControlArrays | None:
        config = self._bundle.config
        return None if steering is None or config is None else control_arrays(config, [Steering(**steering)])


def serve(folder: Path, connection: Connection) -> None:
    """Open a bundle and answer requests until the other side hangs up."""
    server: Server | None = None
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            server = server or Server(folder)
            method: Callable[..., Any] = getattr(server, request.pop("method"))
            said, arrays = method(**request)
        except MissingExtraError as error:
            connection.send_bytes(json.dumps({"missing": str(error)}).encode())
        except ProsocialError as error:
            connection.send_bytes(json.dumps({"error": type(error).__name__, "text": str(error)}).encode())
        except Exception as error:  # onnxruntime's own errors have no common base below Exception
            connection.send_bytes(json.dumps({"failed": " ".join(str(error).split())[:500]}).encode())
        else:
            connection.send_bytes(json.dumps({"said": said}).encode())
            connection.send_bytes(pack(arrays))


def _arrays(outputs: StepOutputs) -> dict[str, NDArray[Any]]:
    return {part: getattr(outputs, part) for part in PARTS}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Connection(int(sys.argv[2])))
