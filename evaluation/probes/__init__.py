"""Probes: their own format, and readers of public probe sets."""
