"""PBLoRA: a low-rank adapter whose core is a linear function of the preference vector (PARM, arXiv 2505.06274).

For a target matrix W [n, m], ranks r1 (preference-agnostic) and r2 (preference-aware), and preference p on the simplex:

    dW(p) = s * (B1 W1 A1 + B2 W2(p) A2),   W2(p) = sum_i p_i W2_i,   s = alpha / r2

Only a merge builds the full delta. A forward pass applies the factors one after the other, with one preference per row
of the batch.
"""

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.nn import functional

from prosocial.core.errors import InputError

from .preference import PreferenceContext


class PBLoRALinear(nn.Module, BaseTunerLayer):
    """A frozen linear layer with preference-conditioned low-rank deltas, one per adapter name.

    An adapter has the factors A [r1 + r2, m], B [n, r1 + r2], W1 [r1, r1] and W2 [k, r2, r2]. The first r1 rows of A
    and columns of B belong to the preference-agnostic part. The factors are float32 for any dtype of the base, and are
    rounded to it where they meet its activations.
    """

    adapter_layer_names = ("pblora_A", "pblora_B", "pblora_W1", "pblora_W2", "pblora_dropout")
    other_param_names = ("scale",)

    def __init__(self, base_layer: nn.Linear, context: PreferenceContext) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.pblora_A, self.pblora_B = nn.ParameterDict(), nn.ParameterDict()
        self.pblora_W1, self.pblora_W2 = nn.ParameterDict(), nn.ParameterDict()
        self.pblora_dropout = nn.ModuleDict()
        self.scale: dict[str, float] = {}
        self._context = context
        self._before_merge: Tensor | None = None
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def add_adapter(
        self, name: str, *, n_attributes: int, rank: int, preference_rank: int, alpha: float, dropout: float
    ) -> None:
        """Add an adapter with B = 0, so that its delta is zero."""
        weight, total = self.base_layer.weight, rank + preference_rank
        shapes = {
            "pblora_A": (total, self.base_layer.in_features),
            "pblora_W1": (rank, rank),
            "pblora_W2": (n_attributes, preference_rank, preference_rank),
        }
        for key, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, device=weight.device))
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
            getattr(self, key)[name] = parameter
        self.pblora_B[name] = nn.Parameter(torch.zeros(self.base_layer.out_features, total, device=weight.device))
        self.pblora_dropout[name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scale[name] = alpha / preference_rank

    def forward(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        """Map x [B, S, m] to [B, S, n]; row b follows preference b of the context."""
        result: Tensor = self.base_layer(x, *arguments, **keywords)
        preference = self._context.value
        if preference is None or self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.pblora_A:
                result = result + self._shift(x, preference, name)
        return result

    def delta(self, preference: Tensor, name: str) -> Tensor:
        """Return the delta dW(p) [n, m] of an adapter for one preference [k]."""
        rank = len(self.pblora_W1[name])
        A, B = self.pblora_A[name], self.pblora_B[name]
        core = torch.einsum("k,krq->rq", preference.to(A), self.pblora_W2[name])
        shared = B[:, :rank] @ self.pblora_W1[name] @ A[:rank]  # [n, r1] @ [r1, r1] @ [r1, m]
        delta: Tensor = self.scale[name] * (shared + B[:, rank:] @ core @ A[rank:])  # [n, r2] @ [r2, r2] @ [r2, m]
        return delta

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add dW(p) to the base weight, for the context's single preference p; `unmerge` restores it bit-identically.

        Args:
            safe_merge: check that the merged weight is finite.
            adapter_names: adapters to merge; None for the active ones.

        Raises:
            InputError: the context does not hold exactly one preference, or the merged weight is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.pblora_A]
        if not names:
            return
        preference = self._context.value
        if preference is None or len(preference) != 1 or not preference.any():
            actual = "none" if preference is None else f"{len(preference)} rows"
            raise InputError(f"a merge needs one preference: wrap it in use_preference(model, ...), found {actual}")
        weight = self.base_layer.weight
        merged = weight.float()
        for name in names:
            merged = merged + self.delta(preference[0], name).to(merged.device)
        if safe_merge and not merged.isfinite().all():
            raise InputError(
                f"the merged weight should be finite, found others with adapter {', '.join(names)}: lower its alpha"
            )
        if self._before_merge is None:
            self._before_merge = weight.detach().clone()
        weight.copy_(merged.to(weight.dtype))
        self.merged_adapters += names

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the base weight as it was before the first merge."""
        if self._before_merge is not None:
            self.base_layer.weight.copy_(self._before_merge)
        self._before_merge = None
        self.merged_adapters.clear()

    def _shift(self, x: Tensor, preference: Tensor, name: str) -> Tensor:
        """Return dW(p) x [B, S, n]. The factors are mixed in float32 and applied in the dtype of x."""
        rank, spread = len(self.pblora_W1[name]), self._context.spread
        A, B, W1, W2 = (
            spread(group[name], len(x)) for group in (self.pblora_A, self.pblora_B, self.pblora_W1, self.pblora_W2)
        )  # each shared by all rows, or [B, ...] with one copy per row
        rows = preference.to(A)
        core = torch.einsum("bk,krq->brq" if W2.ndim == 3 else "bk,bkrq->brq", rows, W2)  # [B, r2, r2]
        both = functional.pad(W1, (0, core.shape[-1]) * 2) + functional.pad(core, (rank, 0) * 2)  # block-diagonal
        both = self.scale[name] * rows.any(-1)[:, None, None] * both  # a row of zeros turns the adapter off
        low = self.pblora_dropout[name](x) @ A.to(x.dtype).mT  # [B, S, r1 + r2]
        shift: Tensor = low @ both.to(x.dtype).mT @ B.to(x.dtype).mT
        return shift
