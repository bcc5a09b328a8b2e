"""An edit as a LoRA adapter for peft: base + adapter approximates the edited model, up to the rank of the adapter.

For a delta d with coefficient c >= 0 the adapter is alpha / r * (B @ A), where B @ A is the rank-r approximation of -d
and alpha = r * c. That <B @ A, d> <= 0 holds is checked. The factors of a low-rank vector are kept bit for bit, B with
its sign reversed; other deltas are truncated by randomised SVD (Halko, Martinsson and Tropp 2011, arXiv 0909.4061).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prosocial.core.errors import InputError
from prosocial.core.files import new_folder, require_outside, write_json

from ..checkpoints.modules import linear_modules
from ..checkpoints.tensors import bytes_of, read_tensor_fp32
from ..checkpoints.writer import TensorWriter
from ..vectors.adapter_config import CONFIG_NAME, SUBTRACTS_KEY, WEIGHTS_NAME
from ..vectors.description import Tool
from ..vectors.making.adapter_source import PREFIX
from ..vectors.statistics import inner_product, norm
from ..vectors.vector import HarmVector
from .plan import EditPlan
from .realised import require_subtraction

SCHEMA = "prosocial.edit_adapter/1"
REPORT_NAME = "edit_adapter.json"
MAX_LISTED = 20
OVERSAMPLING = 8
N_ITERATIONS = 4


@dataclass(frozen=True)
class CarriedTensor:
    """How well the adapter represents the edit of one tensor.

    Attributes:
        rank: rank of the factors.
        energy: share of the delta's squared norm that the factors keep; 1 if they are the vector's own.
        exact: whether the factors are the vector's own.
    """

    rank: int
    energy: float
    exact: bool


@dataclass(frozen=True)
class AdapterReport:
    """How well an adapter represents an edit.

    Attributes:
        base_fingerprint: fingerprint of the checkpoint that the adapter is for.
        vector_blake3: digest of the harm vector that it subtracts.
        coefficients: coefficient by tensor, above 0.
        energy: share of the whole edit's squared norm that the adapter keeps; left-out tensors count as lost.
        inner_product: `<B @ A, d>` summed over all tensors, never above 0.
        tensors: quality by tensor.
        left_out: names of the edited tensors that a LoRA adapter cannot represent.
    """

    base_fingerprint: str
    vector_blake3: str
    coefficients: dict[str, float]
    energy: float
    inner_product: float
    tensors: dict[str, CarriedTensor]
    left_out: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"schema": SCHEMA, "tool": Tool().model_dump(), **asdict(self)}


def write_adapter(plan: EditPlan, out: Path | str, *, rank: int, leave_out: bool = False) -> AdapterReport:
    """Write an edit as a LoRA adapter folder: `adapter_config.json`, `adapter_model.safetensors`, `edit_adapter.json`.

    Args:
        plan: a validated edit.
        out: path of the new folder.
        rank: rank of each tensor's factors; low-rank vectors keep the rank they have.
        leave_out: leave out tensors that a LoRA adapter cannot represent (norms, embeddings, biases, fused experts)
            instead of raising an error.

    Raises:
        InputError: `rank` is below 1; the edit changes a tensor that is not a linear layer's weight (unless
            `leave_out`); no tensor would be left; `out` exists.
        ArtefactError: transformers does not know the model.
        StorageError: the disk is full, or writing is not permitted.
    """
    if rank < 1:
        raise InputError(f"the rank of an adapter should be at least 1, found {rank}")
    out = Path(out)
    require_outside(out, (plan.target.folder, plan.vector.folder))
    layers = linear_modules(plan.target)
    left_out = _left_out(plan, layers, leave_out)
    carried = [name for name in plan.coefficients if name in layers]
    with new_folder(out) as aside:
        factors = _Factors(plan, {name: layers[name] for name in carried}, rank)
        with TensorWriter(aside / WEIGHTS_NAME, factors.expected) as writer:
            for name in carried:
                factors.write(name, writer)
            writer.finish({"format": "pt", SUBTRACTS_KEY: "true"})
        write_json(aside / CONFIG_NAME, _config(factors, any(layers[name][1] for name in carried)))
        report = _report(plan, factors, left_out)
        write_json(aside / REPORT_NAME, report.to_json())
    return report


def _left_out(plan: EditPlan, layers: Iterable[str], allowed: bool) -> list[str]:
    names = sorted(set(plan.coefficients) - set(layers))
    if names and not allowed:
        raise InputError(
            f"a LoRA adapter should change weights of linear layers only, the edit changes {len(names)} other tensors "
            f"of {plan.target.folder} ({_listed(names)}); leave them out with --leave-out, or write a checkpoint"
        )
    if len(names) == len(plan.coefficients):
        raise InputError(
            f"an adapter of {plan.vector.folder} should change at least one linear layer: the edit changes none; "
            "write a checkpoint instead"
        )
    return names


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


class _Factors:
    """Computes and writes the factors tensor by tensor, and collects their properties for the report."""

    def __init__(self, plan: EditPlan, layers: Mapping[str, tuple[str, bool]], rank: int) -> None:
        self._plan, self._layers, self._rank = plan, layers, rank
        self._vector = HarmVector(plan.vector)
        self.tensors: dict[str, CarriedTensor] = {}
        self.ranks: dict[str, int] = {}
        self.alphas: dict[str, float] = {}
        self.inner_product = 0.0

    @property
    def expected(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and placeholder shape of every tensor to come, for which the writer reserves header space."""
        return [(_key(path, part), (0, 0)) for path, _ in self._layers.values() for part in "AB"]

    def write(self, name: str, writer: TensorWriter) -> None:
        """Write the factors A [rank, in] and B [out, rank] that subtract the delta of one tensor."""
        path, transposed = self._layers[name]
        stored = _fit_rows(self._vector.delta(name), self._plan.target.tensors[name].shape)
        delta = stored.T if transposed else stored
        exact = name in self._plan.vector.factors and stored.shape == self._plan.vector.shape(name)
        up, down, scale = self._stored(name, transposed) if exact else (*truncated(delta, self._rank), 1.0)
        up = -up if scale >= 0 else up
        product = up @ down  # [out, rank] @ [rank, in], approximates -delta / |scale|
        along = inner_product(product, delta) * abs(scale)
        require_subtraction(along)
        for part, factor in (("A", down), ("B", up)):
            writer.write(_key(path, part), "F32", tuple(factor.shape), bytes_of(factor))
        lost = 0.0 if exact else norm(product.add_(delta)) / norm(delta)
        self.tensors[name] = CarriedTensor(len(down), 1 - lost**2, exact)
        self.ranks[path] = len(down)
        self.alphas[path] = len(down) * self._plan.coefficients[name] * abs(scale)
        self.inner_product += along

    def _stored(self, name: str, transposed: bool) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Return up, down and scale of a low-rank vector, with the factors transposed to the layer's layout."""
        places = self._plan.vector.factors[name]
        up, down = read_tensor_fp32(places.up), read_tensor_fp32(places.down)
        return (up, down, places.scale) if places.transposed == transposed else (down.T, up.T, places.scale)


def _fit_rows(delta: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a delta with the rows of a tensor: rows past the tensor's are cut, new rows are 0."""
    if delta.shape == shape:
        return delta
    fitted = torch.zeros(shape)
    n_rows = min(len(delta), len(fitted))
    fitted[:n_rows] = delta[:n_rows]
    return fitted


def truncated(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return up [m, r] and down [r, n], of equal norms, whose product is close to the best rank-r approximation.

    The product is a projection of the matrix, so its inner product with the matrix is never below 0. The random test
    matrix has a fixed seed.

    Args:
        matrix: [m, n] fp32.
        rank: r; at most min(m, n) is used.
    """
    generator = torch.Generator().manual_seed(0)
    n_columns = min(rank + OVERSAMPLING, *matrix.shape)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], n_columns, generator=generator))[0]  # [m, k]
    for _ in range(N_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)  # [k, k], [k], [k, n]
    roots = values[:rank].sqrt()
    return basis @ (left[:, :rank] * roots), roots[:, None] * right[:rank]


def _key(path: str, part: str) -> str:
    return f"{PREFIX}{path}.lora_{part}.weight"


def _config(factors: _Factors, fan_in_fan_out: bool) -> dict[str, Any]:
    """Return the fields of `peft.LoraConfig`: the most common rank and alpha, and patterns for layers with others."""
    (rank, _), *_ = Counter(factors.ranks.values()).most_common(1)
    (alpha, _), *_ = Counter(factors.alphas.values()).most_common(1)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: value for path, value in factors.ranks.items() if value != rank},
        "alpha_pattern": {path: value for path, value in factors.alphas.items() if value != alpha},
        "target_modules": sorted(factors.ranks),
        "fan_in_fan_out": fan_in_fan_out,
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def _report(plan: EditPlan, factors: _Factors, left_out: list[str]) -> AdapterReport:
    requested = {
        name: (coefficient * plan.vector.description.tensors[name].norm) ** 2
        for name, coefficient in plan.coefficients.items()
    }
    kept = sum(requested[name] * item.energy for name, item in factors.tensors.items())
    return AdapterReport(
        base_fingerprint=plan.target.fingerprint(),
        vector_blake3=plan.vector.blake3(),
        coefficients=dict(plan.coefficients),
        energy=kept / sum(requested.values()),
        inner_product=factors.inner_product,
        tensors=factors.tensors,
        left_out=left_out,
    )
