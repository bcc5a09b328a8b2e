"""Which form and rank of the head comes nearest to its teacher, on replies that nothing was fitted to.

    python benchmarks/head_forms.py runs/quickstart

Reads the quickstart's edited model, pairs and reward model, lets the teacher read the pairs' replies once, and fits
every form to the same states: the bilinear head by rank, then non-linear ones of rank 32 (a SiLU before, or after the
core that the preference mixes), which cost no parameter more. Held out: the last tenth of the pairs. Prints KL from
the teacher, the share of the teacher's shift that is explained, and top-1 agreement.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from prosocial.editing.chat import ChatTokenizer
from prosocial.editing.checkpoints import load_model
from prosocial.editing.fingerprint import fingerprint
from prosocial.editing.head import CompactHead
from prosocial.editing.head.distance import HeadDistance, distance_by_rank, head_distance
from prosocial.editing.head.distil import DistilTraining, collect_passes, fit
from prosocial.editing.reward import EncodedPairs, RewardModel, read_pairs
from prosocial.recipes.reward_training import HELD_OUT_SHARE

RANK = 32


class NonLinearHead(CompactHead):
    """The head with a SiLU before the core (`G(p) silu(A h)`) or after it (`silu(G(p) A h)`)."""

    def __init__(self, place: str, like: CompactHead) -> None:
        super().__init__(like.attributes, like.hidden_size, like.rank)
        self._place = place

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return what is lifted back to H."""
        if self._place == "after":
            return nn.functional.silu(super().latent(hidden, preference))
        low = nn.functional.silu(hidden @ self.A.T)
        core = torch.einsum("...k,krq->...rq", preference, self.G)
        return (core @ low.unsqueeze(-1)).squeeze(-1)


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
    training = DistilTraining(rank=RANK, inverse_beta=1 / 3, steps=400)
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
        print_row(f"bilinear, rank {rank}", distance)
    for place in ("before", "after"):
        torch.manual_seed(given.seed)
        head = NonLinearHead(place, CompactHead(names, train.hidden.shape[1], RANK))
        fit(head, train, weight, training=training, seed=given.seed)
        print_row(f"SiLU {place}, rank {RANK}", head_distance(head, held_out, weight, inverse_beta=1 / 3))


def print_row(name: str, found: HeadDistance) -> None:
    """Print one line of the table."""
    print(
        f"{name:24} KL {found.kl:.5f} of {found.kl_unsteered:.5f}  explained {found.explained:6.2%}  "
        f"top-1 {found.top1:6.2%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
