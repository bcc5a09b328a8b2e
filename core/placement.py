"""Where a model's tensors lie, and in which dtype: `auto` takes the fastest of both that the machine has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from .errors import InputError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Placement:
    """A device and a dtype by name, such as `cuda:0` and `bfloat16`; neither is `auto`.

    Examples:
        >>> Placement.choose("cpu", "bfloat16")
        Placement(device='cpu', dtype='bfloat16')
    """

    device: str = "cpu"
    dtype: str = "float32"

    @classmethod
    def choose(cls, device: str = AUTO, dtype: str = AUTO) -> Self:
        """Return the placement for what a user asked for.

        Args:
            device: `cpu`, `cuda`, `cuda:1`, `mps` or another backend of torch; `auto` is the accelerator, else the CPU.
            dtype: `float32`, `bfloat16` or `float16`; `auto` is bfloat16 where the device computes in it, else float32.

        Raises:
            InputError: the device does not exist here, or the dtype has no such name or cannot lie on the device.
        """
        if (device, dtype) == ("cpu", "float32"):  # known without torch, which takes a second to load
            return cls()
        chosen = _existing(device)
        if dtype == AUTO:
            return cls(chosen, "bfloat16" if computes_in_bfloat16(chosen) else "float32")
        if dtype not in DTYPES:
            raise InputError(f"a dtype should be {AUTO}, {', '.join(DTYPES)}, the value is {dtype!r:.40}")
        _require_dtype(chosen, dtype)
        return cls(chosen, dtype)

    def stamp(self) -> dict[str, str]:
        """Return what stored results depend on: the dtype, unless it is float32, which results without one have."""
        return {} if self.dtype == "float32" else {"dtype": self.dtype}

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The dtype as an object of torch."""
        import torch

        result: torch.dtype = getattr(torch, self.dtype)
        return result


REFERENCE = Placement()  # the CPU in float32, as a bundle computes: what is not placed elsewhere


def computes_in_bfloat16(device: str) -> bool:
    """Return whether a device has instructions for bfloat16: AMX or AVX512-BF16 on a CPU, Ampere or later on CUDA."""
    import torch

    match torch.device(device).type:
        case "cpu":
            return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
        case "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        case kind:
            return kind not in ("mps", "meta")


def _existing(name: str) -> str:
    """Return the device for a name, with `auto` resolved.

    Raises:
        InputError: this machine has no such device; `meta` holds no numbers.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == AUTO:
        return "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        exists = device.type != "meta"
    except (RuntimeError, AssertionError, ImportError):  # of an unknown name, and of a backend that is not built in
        exists = False
    if not exists:
        here = "cpu" if accelerator is None else f"cpu and {torch.accelerator.device_count()} of {accelerator.type}"
        raise InputError(
            f"a device should be {AUTO} or one that torch sees on this machine ({here}), the value is {name!r:.40}: "
            f"choose another, or install the torch that was built for it"
        )
    return str(device)


def _require_dtype(device: str, dtype: str) -> None:
    """Raise InputError where a device cannot multiply matrices of a dtype, such as bfloat16 on an old GPU."""
    import torch

    try:
        one = torch.ones(1, 1, device=device, dtype=getattr(torch, dtype))
        (one @ one).cpu()
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{device} should compute in {dtype}, it does not: choose another dtype, or {AUTO}") from error
