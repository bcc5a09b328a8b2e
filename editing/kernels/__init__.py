"""Loops over elements in C, for which numpy would need many passes."""
