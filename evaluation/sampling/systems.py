"""Systems that reply to probes: a bundle, a steered model or a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prosocial.core.chat import ChatTokenizer
from prosocial.steering.decoding.config import DECODING_FILE
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.engine import Engine
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.requests import OnError, reply_settings

from ..probes.probe import Probe


@dataclass(frozen=True)
class System:
    """An opened model.

    Attributes:
        kind: "bundle", "steered" or "checkpoint".
        engine: engine of the decoding loop.
        tokenizer: tokenizer of the model.
    """

    kind: str
    engine: Engine
    tokenizer: ChatTokenizer

    @property
    def max_new_tokens(self) -> int:
        """The default maximum length of a reply, in tokens."""
        return reply_settings(self.engine).max_new_tokens

    def answer(
        self,
        probes: Sequence[Probe],
        *,
        seed: int = 0,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        steering: Steering | Sequence[Steering] | None = None,
        batch_size: int = 32,
        keys: Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> list[Reply]:
        """Return one reply per probe, in order, without the prefill.

        The sampling noise of a reply depends only on the seed and on the probe's id (or its key, if keys are given), so
        that systems are compared with equal noise. With `on_error="reply"`, a probe that cannot be answered gets a
        reply with an error, and the others are answered.
        """
        return generate(
            self.engine,
            self.tokenizer,
            [probe.messages for probe in probes],
            steering=steering,
            prefill=[probe.prefill for probe in probes],
            temperature=temperature,
            seed=seed,
            row_keys=keys or [probe.id for probe in probes],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            on_error=on_error,
        )


def open_system(folder: Path | str) -> System:
    """Open a folder: a bundle if it has `model.onnx`, a steered model if `decoding.json`, otherwise a checkpoint.

    Raises:
        ArtefactError: the folder is incomplete.
        MissingExtraError: an optional dependency that it needs is not installed.
    """
    folder = Path(folder)
    if (folder / "model.onnx").is_file():
        from prosocial.export.runtime.bundle import Bundle

        bundle = Bundle.open(folder)
        return System("bundle", bundle.engine, bundle.tokenizer)
    tokenizer = ChatTokenizer(folder)
    if (folder / DECODING_FILE).is_file():
        from prosocial.steering.steered_model import SteeredModel
        from prosocial.steering.torch_engine import SteeredEngine

        return System("steered", SteeredEngine(SteeredModel.open(folder)), tokenizer)
    from prosocial.editing.checkpoints import load_model
    from prosocial.steering.torch_engine import PlainEngine

    return System("checkpoint", PlainEngine(load_model(folder)), tokenizer)
