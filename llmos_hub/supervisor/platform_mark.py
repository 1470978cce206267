"""The identity of a platform, derived from its data directory itself, so that a copy is a different platform.

All processes that a platform starts carry its mark, and the remaining ones are found by it. A copy of the directory has
the same secrets and records, but must not have the same mark.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from llmos_hub.names import DataDir

__all__ = ["is_copy", "location_of", "mark_of"]


def mark_of(data_dir: DataDir) -> str:
    """Return the mark of the platform in this directory; empty if the directory doesn't exist.

    The mark is made from device and inode: a renamed directory keeps both, a copy has another inode, and an image of its
    file system another device. They don't change while the platform runs, as it has files open there.
    """
    try:
        found = data_dir.root.stat()
    except OSError:
        return ""
    return hashlib.sha256(f"llmos:{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]


def location_of(root: Path) -> dict[str, Any]:
    """Return path, device and inode of a directory, for `is_copy`."""
    found = root.stat()
    return {"path": str(root), "device": found.st_dev, "inode": found.st_ino}


def is_copy(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether a directory is a copy of the one that was used before.

    It isn't one if only the device has changed, as may happen at a reboot, or only the path, as by renaming.
    """
    if not before:
        return False
    same = {key for key in ("path", "device", "inode") if before.get(key) == now[key]}
    return "inode" not in same or not same & {"path", "device"}
