"""PBLoRA as a tuner for peft; importing its config or model registers it with peft."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
