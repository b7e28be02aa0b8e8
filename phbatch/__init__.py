"""phbatch: robust normalization and CARE restoration of phase-contrast time-lapses, Zarr to OME-Zarr.

Everything public is named in ``__init__.pyi``; nothing heavy is imported until it is used.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
