"""Training: the reward model, the compact head, the gate, and tuning of whole models."""
