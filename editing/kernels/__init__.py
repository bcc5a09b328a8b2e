"""Loops over elements in C, which do in one pass what takes numpy several passes."""
