"""Placeholder, replaced when the public list is written."""
