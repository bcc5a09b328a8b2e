"""Harm vectors: what a harmful model adds to its base, as an artefact that can be subtracted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
