"""Compares forms and ranks of the head by their distance from the teacher on held-out replies.

    python benchmarks/head_forms.py runs/quickstart

Uses the quickstart's edited model, pairs and reward model, computes the teacher's states on the pairs' replies once,
and fits every form to them: the head at several ranks, then others of rank 32: without the mixture gain, with a SiLU
before or after the core that the preference mixes, and with an additional core for every pair of attributes. The last
tenth of the pairs is held out. Prints the KL from the teacher, the explained share of its shift, and top-1 agreement.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from prosocial.core.chat import ChatTokenizer
from prosocial.editing.checkpoints import load_model
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.steering.head import CompactHead
from prosocial.training.head.distance import HeadDistance, distance_by_rank, head_distance
from prosocial.training.head.distil import collect_passes, fit
from prosocial.training.head.settings import DistilTraining
from prosocial.training.reward import EncodedPairs, RewardModel, read_pairs
from prosocial.training.reward.held_out import HELD_OUT_SHARE

RANK = 32


class SiluHead(CompactHead):
    """The head with a SiLU after the core, `silu(G(p) A h)`."""

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return what is lifted back to H."""
        return nn.functional.silu(super().latent(hidden, preference))


class SiluFirstHead(CompactHead):
    """The head with a SiLU before the core, `G(p) silu(A h)`."""

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return what is lifted back to H."""
        low = nn.functional.silu(hidden @ self.A.T)
        core = torch.einsum("...k,krq->...rq", self.pull(preference), self.G)
        return (core @ low.unsqueeze(-1)).squeeze(-1)


class PairHead(CompactHead):
    """The head with the core `sum_i p_i G_i + sum_ij p_i p_j G_ij`, i < j."""

    def __init__(self, attributes: Sequence[str], hidden_size: int, rank: int) -> None:
        super().__init__(attributes, hidden_size, rank)
        self.first, self.second = zip(*combinations(range(len(attributes)), 2), strict=True)
        self.G_pairs = nn.Parameter(torch.zeros(len(self.first), rank, rank))

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return what is lifted back to H."""
        both = preference[..., list(self.first)] * preference[..., list(self.second)]
        core = torch.einsum("...k,krq->...rq", both, self.G_pairs)
        return super().latent(hidden, preference) + (core @ (hidden @ self.A.T).unsqueeze(-1)).squeeze(-1)


FORMS = {  # title: class, and whether it learns the mixture gain
    "without mixture gain": (CompactHead, False),
    "SiLU before the core": (SiluFirstHead, True),
    "SiLU after the core": (SiluHead, True),
    "a core for each pair": (PairHead, True),
}


def main() -> None:
    """Fit every form and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of the quickstart")
    parser.add_argument("--ranks", default="2,4,8,16,32,64")
    parser.add_argument("--sequences", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    edited = given.run / "edit"
    model, tokenizer = load_model(edited), ChatTokenizer(edited)
    reward = RewardModel.load(given.run / "reward", model, checkpoint_fingerprint=fingerprint(edited))
    names = reward.config.attributes
    pairs = read_pairs(given.run / "pairs" / "pairs.jsonl", attributes=names)
    encoded = EncodedPairs.from_pairs(pairs, tokenizer=tokenizer, attributes=names, max_tokens=1024).sequences
    firsts = encoded[: len(pairs)]
    n_held_out = max(1, round(HELD_OUT_SHARE * len(pairs)))
    training = DistilTraining(rank=RANK, inverse_beta=1 / 3, steps=1200, mixture_gain=True)
    parts = (firsts[: given.sequences][:-n_held_out], firsts[-n_held_out:])
    train, held_out = (
        collect_passes(reward, part, training=training, pad_id=tokenizer.pad_id, seed=given.seed + at)
        for at, part in enumerate(parts)
    )
    weight: Tensor = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]  # untyped in transformers
    ranks = [int(rank) for rank in given.ranks.split(",")]
    print(f"{len(train)} states to fit, {len(held_out)} held out, KL unsteered as below")
    found = distance_by_rank(train, held_out, weight, attributes=names, training=training, ranks=ranks, seed=given.seed)
    for rank, distance in found.items():
        print_row(f"rank {rank}", distance)
    for title, (form, learns_gain) in FORMS.items():
        torch.manual_seed(given.seed)
        head = form(names, train.hidden.shape[1], RANK)
        head.mixture_gain.requires_grad_(learns_gain)
        fit(head, train, weight, training=training, seed=given.seed)
        print_row(f"{title}, rank {RANK}", head_distance(head, held_out, weight, inverse_beta=1 / 3))


def print_row(name: str, found: HeadDistance) -> None:
    """Print one line of the table."""
    print(
        f"{name:30} KL {found.kl:.5f} of {found.kl_unsteered:.5f}  explained {found.explained:6.2%}  "
        f"top-1 {found.top1:6.2%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
