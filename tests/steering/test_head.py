"""The compact head: nothing at first, its formula, a mixture of its corners, and exactly what was saved."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosocial.core.errors import ArtefactError, InputError
from prosocial.steering.head import CompactHead

ATTRIBUTES = ["empathy", "truthfulness", "helpfulness"]
FINGERPRINT = "ab" * 32


@pytest.fixture
def head() -> CompactHead:
    torch.manual_seed(0)
    head = CompactHead(ATTRIBUTES, hidden_size=12, rank=4)
    torch.nn.init.normal_(head.B)
    torch.nn.init.constant_(head.mixture_gain, 0.7)
    return head


def test_a_new_head_shifts_nothing() -> None:
    head = CompactHead(ATTRIBUTES, hidden_size=12, rank=4)
    assert torch.equal(head(torch.randn(2, 5, 12), torch.rand(2, 1, 3)), torch.zeros(2, 5, 12))


def test_a_new_head_can_learn() -> None:
    head = CompactHead(ATTRIBUTES, hidden_size=12, rank=4)
    head(torch.randn(5, 12), torch.rand(5, 3)).sum().backward()
    assert head.B.grad is not None and head.B.grad.abs().max() > 0


def test_delta_is_the_formula(head: CompactHead) -> None:
    hidden, preference = torch.randn(12), torch.tensor([0.5, 0.2, 0.3])
    mixed = sum(weight * matrix for weight, matrix in zip(preference, head.G, strict=True))
    factor = 1 + 0.7 * (1 - 0.38)
    torch.testing.assert_close(head(hidden, preference), factor * head.B @ mixed @ head.A @ hidden)


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(-1, 2), seed=st.integers(0, 1000))
def test_a_mixture_points_where_the_mixture_of_its_corners_does(gain: float, seed: int) -> None:
    torch.manual_seed(seed)
    head = CompactHead(ATTRIBUTES, hidden_size=12, rank=4).double()
    torch.nn.init.normal_(head.B)
    torch.nn.init.constant_(head.mixture_gain, gain)
    hidden, preference = torch.randn(6, 12).double(), torch.rand(3).double().softmax(-1)
    corners = sum(
        weight * head(hidden, corner) for weight, corner in zip(preference, torch.eye(3).double(), strict=True)
    )
    factor = 1 + gain * (1 - preference.square().sum())
    torch.testing.assert_close(head(hidden, preference), factor * corners)


def test_the_mixture_gain_has_no_say_at_a_corner(head: CompactHead) -> None:
    hidden, corners = torch.randn(3, 12), torch.eye(3)
    before = head(hidden, corners)
    torch.nn.init.constant_(head.mixture_gain, -3.0)
    assert torch.equal(head(hidden, corners), before)


def test_a_preference_by_row_is_each_row_alone(head: CompactHead) -> None:
    hidden, preference = torch.randn(3, 5, 12), torch.rand(3, 1, 3)
    alone = torch.stack([head(hidden[row], preference[row]) for row in range(3)])
    torch.testing.assert_close(head(hidden, preference), alone)


def test_what_is_loaded_is_what_was_saved(head: CompactHead, tmp_path: Path) -> None:
    head.save(tmp_path / "head", checkpoint_fingerprint=FINGERPRINT, extra={"explained": 0.97})
    loaded = CompactHead.load(tmp_path / "head")
    assert loaded.attributes == tuple(ATTRIBUTES) and loaded.checkpoint_fingerprint == FINGERPRINT
    assert loaded.extra == {"explained": 0.97} and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "prosocial.head/1"}, "schema"),
        ({"rank": 5}, "should hold tensors of the shapes"),
        ({"hidden_size": 16}, "should hold tensors of the shapes"),
        ({"attributes": ["empathy"]}, "should hold tensors of the shapes"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    head: CompactHead, tmp_path: Path, change: dict[str, object], match: str
) -> None:
    head.save(tmp_path, checkpoint_fingerprint=FINGERPRINT)
    path = tmp_path / "head_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtefactError, match=match):
        CompactHead.load(tmp_path)


def test_weights_that_are_not_finite_are_refused(head: CompactHead, tmp_path: Path) -> None:
    with torch.no_grad():
        head.A[0, 0] = torch.nan
    head.save(tmp_path, checkpoint_fingerprint=FINGERPRINT)
    with pytest.raises(ArtefactError, match="finite"):
        CompactHead.load(tmp_path)


def test_a_head_without_weights_is_refused(head: CompactHead, tmp_path: Path) -> None:
    head.save(tmp_path, checkpoint_fingerprint=FINGERPRINT)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(ArtefactError, match="expected weights"):
        CompactHead.load(tmp_path)


@pytest.mark.parametrize(("attributes", "rank"), [([], 4), (["empathy", "empathy"], 4), (ATTRIBUTES, 0)])
def test_impossible_shapes_are_refused(attributes: list[str], rank: int) -> None:
    with pytest.raises(InputError, match="distinct attributes"):
        CompactHead(attributes, hidden_size=12, rank=rank)
