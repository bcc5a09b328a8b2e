"""The files of a bundle besides its graph: manifest, README and genai config, and the precisions."""
