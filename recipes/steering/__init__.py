"""The `steering` pipeline: its recipe and its stages."""
