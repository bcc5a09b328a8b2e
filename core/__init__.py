"""What everything else stands on: errors, files, settings, chat encoding, protocols, signing primitives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
