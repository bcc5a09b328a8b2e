"""Edit, steer, export and verify language models: steered checkpoints that others can trust.

The public names are in the subpackages `prosocial.editing`, `prosocial.steering`, `prosocial.training`,
`prosocial.export`, `prosocial.evaluation` and `prosocial.verify`, and in `prosocial.core`, which all of them use.
"""

from importlib.metadata import version

from .moved import announce_moves

__version__ = version("prosocial")
announce_moves()
