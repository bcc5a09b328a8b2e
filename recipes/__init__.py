"""Recipes: a whole run as YAML, the runner that makes each stage once, and the lab."""
