"""What a gate is worth: is its risk a probability, and which threshold shows the leak rate that was asked for?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
