"""Recipes: YAML files that describe a whole run, the runner that executes each stage once, and the lab."""
