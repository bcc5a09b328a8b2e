"""What all other folders share: errors, files, settings, chat encoding, protocols and signing primitives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
