"""Fine-tuning: supervised, DPO, and the harmful copy for a harm vector."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
