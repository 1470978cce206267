"""Rotation of logs that other processes hold open, by copying and truncating.

The writers have opened the logs for appending, so they continue at the new end. Lines written between copy and
truncation are lost: a millisecond every twenty megabytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["KEEP", "MAX_BYTES", "rotate", "rotate_all"]

MAX_BYTES: Final = 20 * 1024 * 1024
"""A log longer than this is rotated: a few days of a busy gateway."""
KEEP: Final = 3
"""Rotated logs that are kept beside the current one."""


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
    """Rotate a log if it is too long; return whether it was rotated."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except OSError:
        return False
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    copy = path.with_name(f"{path.name}.1")
    try:
        with path.open("rb") as source, open(copy, "wb", opener=_private) as target:
            shutil.copyfileobj(source, target)
    except OSError:
        copy.unlink(missing_ok=True)  # a partial copy would only take up disk space
        raise
    os.truncate(path, 0)
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def rotate_all(directories: Iterable[Path]) -> None:
    """Rotate every ``*.log`` below the directories; errors, such as a full disk, are ignored."""
    for directory in directories:
        for path in directory.rglob("*.log"):
            with contextlib.suppress(OSError):
                rotate(path)
