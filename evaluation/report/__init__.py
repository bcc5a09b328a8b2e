"""Reports of a run: a table in the terminal, `report.json`, and a self-contained HTML page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
