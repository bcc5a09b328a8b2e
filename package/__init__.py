"""Edit, steer, export and verify language models: steered checkpoints that others can trust.

Each folder has a short list of what can be used alone: `prosocial.editing`, `prosocial.steering`, `prosocial.training`,
`prosocial.export`, `prosocial.evaluation`, `prosocial.verify`, and `prosocial.core` below them all.
"""

from importlib.metadata import version

from .moved import announce_moves

__version__ = version("prosocial")
announce_moves()
