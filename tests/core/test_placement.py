"""Devices and dtypes by name."""

import pytest
import torch

from prosocial.core.errors import InputError
from prosocial.core.placement import Placement, computes_in_bfloat16


def test_auto_is_what_the_machine_is_fast_at() -> None:
    chosen = Placement.choose()
    assert (chosen.device == "cpu") == (not torch.accelerator.is_available())
    assert (chosen.dtype == "bfloat16") == computes_in_bfloat16(chosen.device)


def test_a_named_dtype_stays() -> None:
    assert Placement.choose("cpu", "float32").torch_dtype is torch.float32


@pytest.mark.parametrize("name", ["nosuch", "meta", "cuda:97", "", "cpu:x"])
def test_a_device_that_does_not_exist_is_refused_with_what_does(name: str) -> None:
    with pytest.raises(InputError, match="cpu"):
        Placement.choose(name)


def test_a_dtype_by_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="'int8'"):
        Placement.choose("cpu", "int8")
