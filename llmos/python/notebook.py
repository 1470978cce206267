"""The notebook environment: all kernels run in it, and none in the platform's own environment.

Set-up (`tools/bootstrap.py`) makes it in two steps: first the packages that LLMOS needs, then the data packages while
the platform already runs. The file `COMPLETE` marks the end.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from llmos.python.layer import ENV_BASE

__all__ = ["COMPLETE", "EXPECTED", "Awaited", "await_packages", "notebook_environment", "setup_command"]

COMPLETE = ".llmos-complete"
"""Name of the file that marks a complete environment."""
EXPECTED = ".llmos-expected"
"""Name of the file with the modules that aren't installed yet, one per line."""


def notebook_environment(prefix: str = sys.prefix) -> Path:
    """Return the notebook environment for the platform's prefix; the same one if there is no other, as in an image."""
    beside = Path(f"{prefix}-notebook")
    return beside if (beside / "bin" / "python").exists() else Path(prefix)


def setup_command() -> list[str]:
    """Return the command that completes the environment; empty if this isn't a checkout or nothing is missing."""
    base, script = notebook_environment(), Path(__file__).parents[2] / "tools" / "bootstrap.py"
    if not (base / EXPECTED).exists() or (base / COMPLETE).exists() or not script.exists():
        return []
    return [str(base / "bin" / "python"), "-I", str(script), "--complete"]


class Awaited:
    """An import finder that raises a helpful error for modules that aren't installed yet."""

    def __init__(self, base: Path, modules: Sequence[str]) -> None:
        self._complete = base / COMPLETE
        self._modules = frozenset(modules)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002 - the import system's signature
        """Raise an error for a module that isn't installed yet."""
        if name in self._modules and not self._complete.exists():
            raise ModuleNotFoundError(
                f"{name} is still being fetched for all notebooks; run this again in a minute "
                "(on the machine itself `llmos status` says how it stands).",
                name=name,
            )
        return None


def await_packages(environ: Mapping[str, str] = os.environ) -> Awaited | None:
    """Install a finder for modules that aren't installed yet; return it, or None if none is missing."""
    base = Path(environ.get(ENV_BASE) or sys.prefix)
    if (base / COMPLETE).exists():
        return None
    try:
        modules = re.findall(r"^\w+$", (base / EXPECTED).read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    finder = Awaited(base, modules)
    sys.meta_path.append(finder)  # appended, so that it is asked only if no other finder has found the module
    return finder
