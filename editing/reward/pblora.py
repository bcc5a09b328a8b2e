"""PBLoRA: a low-rank adapter whose core is a linear function of the preference vector (PARM, arXiv 2505.06274).

For a target matrix W [n, m], ranks r1 (preference-agnostic) and r2 (preference-aware), and preference p on the simplex:

    dW(p) = s * (B1 W1 A1 + B2 W2(p) A2),   W2(p) = sum_i p_i W2_i,   s = alpha / r2

The delta is never built: the factors are applied in turn, with one preference per row of the batch.
"""

import contextlib
import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError


class PreferenceContext:
    """The preferences [B, k] of the batch that is in flight; None switches every adapter off."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    @contextlib.contextmanager
    def use(self, preference: Tensor | None) -> Iterator[None]:
        """Set the batch's preferences for the duration of a block."""
        before, self.value = self.value, preference
        try:
            yield
        finally:
            self.value = before


class PBLoRALinear(nn.Module):
    """A frozen linear layer plus a preference-conditioned bilinear low-rank delta."""

    def __init__(
        self,
        base: nn.Linear,
        context: PreferenceContext,
        *,
        n_attributes: int,
        rank: int,
        preference_rank: int,
        alpha: float,
    ) -> None:
        super().__init__()
        self.base = base
        self.rank, self.preference_rank, self.scale = rank, preference_rank, alpha / preference_rank
        self._context = [context]  # in a list, so that it is not taken for a sub-module
        device = base.weight.device
        total = rank + preference_rank
        self.A = nn.Parameter(torch.empty(total, base.in_features, device=device))
        self.B = nn.Parameter(torch.zeros(base.out_features, total, device=device))
        self.W1 = nn.Parameter(torch.empty(rank, rank, device=device))
        self.W2 = nn.Parameter(torch.empty(n_attributes, preference_rank, preference_rank, device=device))
        for parameter in (self.A, self.W1, self.W2):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, S, m] to [B, S, n]; row b uses preference b of the context."""
        base: Tensor = self.base(x)
        preference = self._context[0].value
        if preference is None:
            return base
        low = x.to(self.A.dtype) @ self.A.T  # [B, S, r1 + r2]
        core = torch.einsum("bk,krq->brq", preference, self.W2)  # [B, r2, r2]
        agnostic = low[..., : self.rank] @ self.W1.T
        aware = low[..., self.rank :] @ core.transpose(1, 2)
        is_on = preference.any(-1)[:, None, None]  # a row of zeros is no preference: that row stays unadapted
        mixed = torch.cat([agnostic, aware], dim=-1) * is_on
        return base + (self.scale * (mixed @ self.B.T)).to(base.dtype)


def inject_pblora(
    model: nn.Module, *, targets: str, n_attributes: int, rank: int, preference_rank: int, alpha: float
) -> PreferenceContext:
    """Freeze `model` and wrap, in place, every linear layer whose name fully matches the regex `targets`.

    Raises:
        InputError: no linear layer matches.
    """
    context = PreferenceContext()
    model.requires_grad_(False)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(targets, name) is not None
    ]
    if not names:
        raise InputError(
            f"targets {targets!r} should fully match the names of linear layers: none of this model's match"
        )
    for name in names:
        parent_name, _, leaf = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        layer = PBLoRALinear(
            getattr(parent, leaf),
            context,
            n_attributes=n_attributes,
            rank=rank,
            preference_rank=preference_rank,
            alpha=alpha,
        )
        setattr(parent, leaf, layer)
    return context


def pblora_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's own tensors by name."""
    return {
        f"{name}.{key}": getattr(module, key).detach()
        for name, module in model.named_modules()
        if isinstance(module, PBLoRALinear)
        for key in ("A", "B", "W1", "W2")
    }


def load_pblora_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors saved from `pblora_state`.

    Raises:
        InputError: the names differ from the injected adapter's.
    """
    own = pblora_state(model)
    if set(own) != set(state):
        odd = sorted(set(own) ^ set(state))
        raise InputError(f"the reward model's tensors should match the injected layers: {odd[0]} does not")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise InputError(f"{name} should have shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}")
            tensor.copy_(state[name])
