"""The compact head: a preference-conditioned low-rank shift of the hidden state, distilled from a reward model."""
