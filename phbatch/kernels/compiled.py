"""Functions that are compiled when one of them is first called: who plans or hands out units needs no compiler.

Numba takes 60 MB and the better part of a second to load. Without `fastmath` it may neither reorder nor fuse the
operations of a pixel, so that code of any width gives NumPy's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

_compiling = Lock()


class _Later:
    """Stands for a function in its module until it, or another one of the module, is called."""

    def __init__(self, function: Callable[..., Any], **options: bool) -> None:
        self._function = function
        self._options = options

    def __call__(self, *arguments: Any) -> Any:
        names = self._function.__globals__
        with _compiling:
            if names[self._function.__name__] is self:
                _compile_all(names)
        return names[self._function.__name__](*arguments)


def compile_later(function: Callable[..., Any]) -> Any:
    """Compile a function of a module, with all others of the module that it may call, once one of them is called."""
    return _Later(function)


def compile_within(function: Callable[..., Any]) -> Any:
    """As `compile_later`, for what compiled functions alone may call: a call from Python crashes."""
    return _Later(function, no_cpython_wrapper=True)


def _compile_all(names: dict[str, Any]) -> None:
    import numba

    # What nobody needs is not compiled: wrappers for callers in C take a twelfth of the time.
    usual = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    later = {name: value for name, value in list(names.items()) if isinstance(value, _Later)}
    names.update({name: numba.njit(**usual | value._options)(value._function) for name, value in later.items()})
