"""The OpenMP runtime that llama.cpp's wheel needs from the system, where the system has none.

``xllamacpp`` links ``libgomp.so.1``, which comes with a compiler and is missing on a small Debian. LLVM's runtime
speaks the same interface under the same name and comes as a package (``cmeel-libomp``).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sysconfig
from pathlib import Path

__all__ = ["openmp_environment"]

LIBRARY = "libgomp.so.1"


def _system_has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@functools.cache
def openmp_environment(library: str = LIBRARY) -> dict[str, str]:
    """What a process must have in its environment to load llama.cpp; empty where the system has all it needs."""
    packaged = Path(sysconfig.get_path("purelib")) / "cmeel.prefix" / "lib"
    if _system_has(library) or not (packaged / LIBRARY).exists():
        return {}
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{packaged}:{inherited}" if inherited else str(packaged)}
