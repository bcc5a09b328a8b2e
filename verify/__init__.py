"""Probes, judges, parity with the reference, paired safety statistics, and reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
