"""The lexicographic decoding rule: torch reference, decoding loop, and safety configs with their authorisation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
