"""Probes, judges, metrics and their statistics, sweeps, scores and reports."""
