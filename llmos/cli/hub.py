"""Verbs for the platform itself, which ``llmos-hub`` implements."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from llmos.errors import Unsupported

__all__ = ["run_platform_verb"]


def _find() -> str | None:
    """Return the program's path, next to this interpreter or on PATH."""
    beside = Path(sys.executable).parent / "llmos-hub"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("llmos-hub")


def run_platform_verb(words: Sequence[str]) -> int:
    """Replace this process by ``llmos-hub`` with the same arguments.

    Raises
    ------
    Unsupported
        The platform isn't installed here.
    """
    program = _find()
    if program is None:
        raise Unsupported(
            f"`llmos {words[0]}` is about the platform itself, which is not installed here. "
            "Install it with: pip install 'llmos[platform]'"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, [program, *words])  # noqa: S606 - replacing the process lets signals reach it directly
    except OSError as error:
        raise Unsupported(f"{program} can't be started: {error.strerror}.") from None
