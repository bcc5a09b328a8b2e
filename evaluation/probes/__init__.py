"""Probes: one format of ours, and readers of public probe sets."""
