"""Reads recipes from YAML and applies overrides from the command line."""
