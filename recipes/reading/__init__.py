"""Recipes as YAML: reading them, and overrides from the command line."""
