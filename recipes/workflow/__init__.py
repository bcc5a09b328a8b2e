"""Stages, the plan of a run, the store of results, and the runner."""
