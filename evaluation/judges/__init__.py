"""Judges of replies: refusal detector, classifiers, and models behind an endpoint."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
