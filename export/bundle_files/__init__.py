"""The files of a bundle beside its graph: manifest, card, genai config, precision."""
