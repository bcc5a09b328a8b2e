"""Stages, the store of their results, the plan and its run."""
