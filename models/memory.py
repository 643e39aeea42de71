"""How a process that handles whole models uses memory: the garbage collector and the C library's allocator.

A model is megabytes, and a process touches many copies of it in quick succession. Where the library is not glibc, its
part does nothing, and nothing is lost but memory.
Source: Python's gc module; mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_LIBRARY: Final = ctypes.CDLL(None)


@contextmanager
def loading() -> Iterator[None]:
    """Collect no garbage while modules load; what was loaded is then set apart, and later collections are quick."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def share_one_arena() -> None:
    """Let all threads allocate in one place, so that what one has freed serves the next; call it before any starts."""
    _set(_ARENA_MAX, 1)


def keep_large_blocks() -> None:
    """Keep what was freed: batch after batch needs the same blocks, and the kernel gives them page by page."""
    _set(_MMAP_MAX, 0)
    _set(_TRIM_THRESHOLD, 2**31 - 1)
    _set(_TOP_PAD, 16 * 2**20)


def give_back() -> None:
    """Return to the system what is free."""
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(_LIBRARY, "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
