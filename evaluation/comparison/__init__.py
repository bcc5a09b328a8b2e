"""Paired comparison of two models on the same probes."""
