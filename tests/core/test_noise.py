"""Noise hangs on the seed and the row's key, and on nothing else."""

import numpy as np

from prosocial.core.noise import GumbelNoise


def test_a_row_draws_the_same_noise_in_any_batch() -> None:
    alone = GumbelNoise(3, ["b"])
    together = GumbelNoise(3, ["a", "b", "c"])
    first = together.draw(5)
    assert np.array_equal(first[1], alone.draw(5)[0])
    assert np.array_equal(together.draw(5, rows=[1])[0], alone.draw(5)[0])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(GumbelNoise(4, ["b"]).draw(5)[0], first[1])


def test_the_highest_perturbed_logit_is_a_draw_from_the_softmax() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    keys = [str(index) for index in range(4000)]
    chosen = (logits + GumbelNoise(0, keys).draw(3)).argmax(-1)
    assert np.abs(np.bincount(chosen) / len(keys) - np.exp(logits)).max() < 0.03
