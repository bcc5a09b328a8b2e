"""Sessions of ONNX Runtime: what they read stays where it is for as long as they live."""

import gc
from pathlib import Path

import numpy as np

from prosocial.export import Bundle


def test_a_session_keeps_the_memory_that_it_reads(portable_bundle: Path) -> None:
    """ONNX Runtime reads weights where they were mapped: nobody must have to keep the bundle for them."""
    kept = Bundle.open(portable_bundle, threads=1)
    alone = Bundle.open(portable_bundle, threads=1).session.session
    gc.collect()
    assert sum(value.nbytes for value in alone.kept[1].values()) > 0
    feed = {
        value.name: np.zeros([1 if isinstance(size, str) else size for size in value.shape], np.int64)
        for value in alone.get_inputs()
        if value.name == "input_ids"
    }
    feed |= {"attention_mask": np.ones((1, 1), np.int64), "position_ids": np.zeros((1, 1), np.int64)}
    empty = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in alone.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    both = [session.run(["logits"], feed | empty)[0] for session in (alone, kept.session.session)]
    assert np.array_equal(*both)
