"""Systems that reply to probes: a bundle, a steered model or a checkpoint."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.placement import AUTO, REFERENCE, Placement
from prosocial.steering.decoding.config import DECODING_FILE
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.engine import Engine
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.requests import OnError, reply_settings

from ..probes.probe import Probe


@dataclass(frozen=True)
class Hardware:
    """What systems run on.

    Attributes:
        placement: device and dtype of models in torch.
        provider: execution provider of bundles in ONNX Runtime.
    """

    placement: Placement = REFERENCE
    provider: str = "cpu"

    @classmethod
    def choose(
        cls,
        folders: Iterable[Path | str],
        *,
        device: str | None = None,
        dtype: str | None = None,
        provider: str | None = None,
    ) -> Self:
        """Return what the systems in some folders run on; torch and ONNX Runtime are loaded only if one needs them.

        Args:
            folders: folders of bundles, steered models or checkpoints.
            device: as for `Placement.choose`; None for `auto`.
            dtype: as for `Placement.choose`; None for float32, in which the replies are those of an exported bundle.
            provider: as for `provider_named`; None for `cpu`.

        Raises:
            InputError: this machine lacks the device or the provider, or no system would run there.
        """
        kinds = {is_bundle(Path(folder)) for folder in folders}
        if True not in kinds and provider is not None:
            raise InputError(f"--provider {provider} should be for a bundle, there is none: leave it out")
        if False not in kinds and (device, dtype) != (None, None):
            raise InputError(
                "--device and --dtype should be for a model in torch, there are only bundles: use --provider"
            )
        if provider is not None:
            from prosocial.export.runtime.session import provider_named

            provider_named(provider)
        placement = Placement.choose(device or AUTO, dtype or REFERENCE.dtype) if False in kinds else REFERENCE
        return cls(placement, provider or "cpu")

    def to_json(self) -> dict[str, str]:
        """Return device, dtype and provider as JSON values."""
        return {**vars(self.placement), "provider": self.provider}


ON_CPU = Hardware()


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is that of a bundle."""
    return (folder / "model.onnx").is_file()


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


def open_system(folder: Path | str, hardware: Hardware = ON_CPU) -> System:
    """Open a folder: a bundle if it has `model.onnx`, a steered model if `decoding.json`, otherwise a checkpoint.

    Args:
        folder: the folder.
        hardware: what it runs on.

    Raises:
        ArtefactError: the folder is incomplete.
        MissingExtraError: an optional dependency that it needs is not installed.
    """
    folder, placement = Path(folder), hardware.placement
    if is_bundle(folder):
        from prosocial.export.runtime.bundle import Bundle

        bundle = Bundle.open(folder, provider=hardware.provider)
        return System("bundle", bundle.engine, bundle.tokenizer)
    tokenizer = ChatTokenizer(folder)
    if (folder / DECODING_FILE).is_file():
        from prosocial.steering.steered_model import SteeredModel
        from prosocial.steering.torch_engine import SteeredEngine

        return System("steered", SteeredEngine(SteeredModel.open(folder, placement)), tokenizer)
    from prosocial.editing.checkpoints import load_model
    from prosocial.steering.torch_engine import PlainEngine

    model = load_model(folder, dtype=placement.torch_dtype, device=placement.device)
    return System("checkpoint", PlainEngine(model), tokenizer)
