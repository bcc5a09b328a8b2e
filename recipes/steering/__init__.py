"""The pipeline `steering`: its recipe and its stages."""
