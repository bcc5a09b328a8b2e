"""Making a harm vector from checkpoints, adapters or other vectors, shaped by a method."""
