"""The reward model: named attributes, labelled pairs, a preference-conditioned adapter, and its training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
