"""Use of a packaged OpenMP runtime for llama.cpp's wheel, if the system has none.

``xllamacpp`` links ``libgomp.so.1``, which is installed with a compiler and missing on a small Debian. LLVM's runtime
has the same interface under the same name, and there is a package of it (``cmeel-libomp``). The loader reads its
search path when a process starts, so the process is started again with another path.
"""

from __future__ import annotations

import os
import sys

__all__ = ["with_openmp"]

LIBRARY = "libgomp.so.1"
_ASKED = "LLMOS_OPENMP"
"""Variable that is set for the second start, so that there is no third."""


def _system_has(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def with_openmp(library: str = LIBRARY) -> None:
    """Restart this process with the packaged runtime if llama.cpp needs it; return if it doesn't or there is none."""
    packaged = os.path.join(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")  # noqa: PTH118 - pathlib costs more than all of this
    directory = os.path.join(packaged, "cmeel.prefix", "lib")  # noqa: PTH118 - as above
    if _ASKED in os.environ or _system_has(library) or not os.path.exists(os.path.join(directory, LIBRARY)):  # noqa: PTH110, PTH118
        return
    inherited = os.environ.get("LD_LIBRARY_PATH")
    path = f"{directory}:{inherited}" if inherited else directory
    environment = {**os.environ, "LD_LIBRARY_PATH": path, _ASKED: "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - the very same program
