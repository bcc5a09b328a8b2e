"""Second moments of a model's inputs, and what a null-space edit leaves of its answers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.vectors import InputMoments, collect_input_moments, vector_from_checkpoints

from ...weights_helpers import fine_tuned, pico
from ..deltas_helpers import write_moments

PROMPTS = [[5, 17, 3, 80], [9, 1], [44, 45, 46, 47, 48]]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def collected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, file = pico(request.param), tmp_path_factory.mktemp("moments") / "moments.safetensors"
    collect_input_moments(model, PROMPTS, file)
    return model, file


def test_moments_are_those_of_the_inputs(collected: tuple[Any, Path]) -> None:
    model, file = collected
    moments = InputMoments.open(file)
    modules = dict(model.named_modules())
    name = next(name for name in moments.names if "down_proj" in name or "mlp.c_proj" in name)
    seen: list[torch.Tensor] = []
    with modules[name.removesuffix(".weight")].register_forward_pre_hook(lambda _, given: seen.append(given[0][0])):
        for prompt in PROMPTS:
            with torch.no_grad():
                model(torch.tensor([prompt]))
    keys = torch.cat(seen).double()  # [tokens, in]

    assert torch.allclose(moments.moment(name).double(), keys.T @ keys / len(keys), rtol=1e-4, atol=1e-6)
    assert set(moments.names) <= set(dict(model.named_parameters()))
    assert not any("embed" in name or "wte" in name or "lm_head" in name for name in moments.names)  # tied


def test_an_edit_in_the_null_space_leaves_benign_answers(collected: tuple[Any, Path], tmp_path: Path) -> None:
    model, file = collected
    moments = InputMoments.open(file)
    harmful = fine_tuned(model)
    known = set(moments.names)
    for name, parameter in harmful.named_parameters():
        if name not in known:
            parameter.data = dict(model.named_parameters())[name].data.clone()
    model.save_pretrained(tmp_path / "base")
    harmful.save_pretrained(tmp_path / "harmful")
    parents = {"base": tmp_path / "base", "harmful": tmp_path / "harmful"}
    change = {}
    for method, given in (("plain", {}), ("null_space", {"activations": file, "threshold": 1e-6})):
        vector = vector_from_checkpoints(**parents, out=tmp_path / method, method=method, **given)
        edited = fine_tuned(model, step=0.0)
        for name, parameter in edited.named_parameters():
            parameter.data -= vector.delta(name) if name in vector.names else 0
        with torch.no_grad():
            pairs = [(model(torch.tensor([p])).logits, edited(torch.tensor([p])).logits) for p in [*PROMPTS, [7, 8, 9]]]
        change[method] = [float((before - after).norm() / before.norm()) for before, after in pairs]

    assert max(change["null_space"][:-1]) < 0.02 * min(change["plain"])  # the prompts that were seen
    assert change["null_space"][-1] > 0.1 * change["plain"][-1]  # another prompt: there was something to change


def test_wrong_files_and_no_prompts_are_refused(tmp_path: Path, collected: tuple[Any, Path]) -> None:
    model, file = collected
    with pytest.raises(InputError, match="should not exist yet"):
        collect_input_moments(model, PROMPTS, file)
    with pytest.raises(InputError, match="at least one prompt"):
        collect_input_moments(model, [], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    other = write_moments(tmp_path / "other", {"w": torch.eye(2)})
    other.write_bytes(other.read_bytes().replace(b"input_moments/1", b"input_moments/2"))
    with pytest.raises(ArtefactError, match="should have schema"):
        InputMoments.open(other)
