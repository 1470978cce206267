"""Memory of this process itself."""

from __future__ import annotations

import contextlib
from typing import Final

__all__ = ["share_one_heap"]

_M_ARENA_MAX: Final = -8
"""The constant of malloc.h."""


def share_one_heap() -> None:
    """Let all threads of this process share one heap; to be called before any are started.

    glibc gives each thread its own heap (mallopt(3), M_ARENA_MAX), and memory freed in the heap of an executor's thread
    is not used by others: after a thousand changed services the controllers used a quarter more memory. Threads that
    rarely allocate at the same time gain nothing from separate heaps. Without glibc, nothing happens.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
