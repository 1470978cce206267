"""The notebook environment: what all kernels run in, beside the platform's own, which none runs in.

Set-up (`tools/bootstrap.py`) makes it, LLMOS' part first; what people who work with data expect follows while the
platform already runs. `COMPLETE` is there once all of it is.
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
"""The file in it that says that nothing is missing."""
EXPECTED = ".llmos-expected"
"""The file in it that names, one in a line, the modules that are still to come."""


def notebook_environment(prefix: str = sys.prefix) -> Path:
    """Return where it is, given the platform's; that one itself where there is no other, as in an image."""
    beside = Path(f"{prefix}-notebook")
    return beside if (beside / "bin" / "python").exists() else Path(prefix)


def setup_command() -> list[str]:
    """The command that completes it; empty where this is no checkout, or nothing is missing."""
    base, script = notebook_environment(), Path(__file__).parents[2] / "tools" / "bootstrap.py"
    if not (base / EXPECTED).exists() or (base / COMPLETE).exists() or not script.exists():
        return []
    return [str(base / "bin" / "python"), "-I", str(script), "--complete"]


class Awaited:
    """A finder that answers for modules that are still being fetched: in words, instead of "No module named"."""

    def __init__(self, base: Path, modules: Sequence[str]) -> None:
        self._complete = base / COMPLETE
        self._modules = frozenset(modules)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002 - the import system's signature
        """Refuse a module that isn't there yet."""
        if name in self._modules and not self._complete.exists():
            raise ModuleNotFoundError(
                f"{name} is still being fetched for all notebooks; run this again in a minute "
                "(on the machine itself `llmos status` says how it stands).",
                name=name,
            )
        return None


def await_packages(environ: Mapping[str, str] = os.environ) -> Awaited | None:
    """Let imports of what is still to come fail in words; None where nothing is to come."""
    base = Path(environ.get(ENV_BASE) or sys.prefix)
    if (base / COMPLETE).exists():
        return None
    try:
        modules = re.findall(r"^\w+$", (base / EXPECTED).read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    finder = Awaited(base, modules)
    sys.meta_path.append(finder)  # the last one: asked when nobody else has found it
    return finder
