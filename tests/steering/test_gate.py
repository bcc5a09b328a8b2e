"""The gate: the formula of its risk, and exactly what was saved."""

import json
from pathlib import Path

import pytest
import torch

from prosocial.core.errors import ArtefactError, InputError
from prosocial.steering.gate import HarmGate

CATEGORIES = ["violence", "drugs"]
FINGERPRINT = "cd" * 32


@pytest.fixture
def gate() -> HarmGate:
    torch.manual_seed(0)
    gate = HarmGate(CATEGORIES, vocabulary_size=20, hidden_size=12, rank=4)
    torch.nn.init.normal_(gate.a)
    torch.nn.init.normal_(gate.b)
    return gate


def test_risk_is_the_formula(gate: HarmGate) -> None:
    hidden, candidates = torch.randn(2, 3, 12), torch.randint(20, (2, 3, 5))
    risk = gate.risk_logits(hidden, candidates)
    assert risk.shape == (2, 3, 5, 2)
    for row, at, candidate, category in [(0, 0, 0, 0), (1, 2, 4, 1), (0, 1, 3, 1)]:
        h, u = hidden[row, at], gate.U[candidates[row, at, candidate]]
        expected = u @ gate.M[category] @ h + gate.b[category] @ h + gate.a[category]
        torch.testing.assert_close(risk[row, at, candidate, category], expected)


def test_every_parameter_gets_a_gradient(gate: HarmGate) -> None:
    gate.risk_logits(torch.randn(3, 12), torch.randint(20, (3, 5))).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in gate.parameters())


def test_what_is_loaded_is_what_was_saved(gate: HarmGate, tmp_path: Path) -> None:
    gate.save(tmp_path / "gate", checkpoint_fingerprint=FINGERPRINT, extra={"auc": 0.9})
    loaded = HarmGate.load(tmp_path / "gate")
    assert loaded.categories == tuple(CATEGORIES) and loaded.checkpoint_fingerprint == FINGERPRINT
    assert loaded.extra == {"auc": 0.9} and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in gate.state_dict().items())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "prosocial.head/2"}, "schema"),
        ({"vocabulary_size": 21}, "should hold tensors of the shapes"),
        ({"categories": ["violence"]}, "should hold tensors of the shapes"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    gate: HarmGate, tmp_path: Path, change: dict[str, object], match: str
) -> None:
    gate.save(tmp_path, checkpoint_fingerprint=FINGERPRINT)
    path = tmp_path / "gate_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtefactError, match=match):
        HarmGate.load(tmp_path)


@pytest.mark.parametrize(("categories", "rank"), [([], 4), (["drugs", "drugs"], 4), (CATEGORIES, 0)])
def test_impossible_shapes_are_refused(categories: list[str], rank: int) -> None:
    with pytest.raises(InputError, match="distinct categories"):
        HarmGate(categories, vocabulary_size=20, hidden_size=12, rank=rank)
