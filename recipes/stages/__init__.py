"""The stages of a recipe, one file for each part of the way from a base model to a verified bundle."""
