"""How a harm vector is made: from checkpoints, adapters or another vector, shaped by a method."""
