"""Which platform this is: tied to its data directory itself, so that a copy is another one.

Everything that a platform starts carries its mark, and whoever ends what is left of it looks for that mark. A copy
of the directory has the same secrets and the same records; what it must not have is the same mark.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from llmos_hub.names import DataDir

__all__ = ["is_copy", "mark_of", "place_of"]


def mark_of(data_dir: DataDir) -> str:
    """The mark of the platform that lives in this directory; empty where there is no such directory.

    From its device and inode: a directory that is renamed keeps both, a copy has another inode, and an image of its
    file system another device. While the platform runs they don't change, as it has files open there.
    """
    try:
        found = data_dir.root.stat()
    except OSError:
        return ""
    return hashlib.sha256(f"llmos:{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]


def place_of(root: Path) -> dict[str, Any]:
    """Where a directory is, for `is_copy`."""
    found = root.stat()
    return {"path": str(root), "device": found.st_dev, "inode": found.st_ino}


def is_copy(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a directory is a copy of the one that was used the last time.

    A device alone may change when the machine starts again; a path alone, when the directory is renamed.
    """
    if not before:
        return False
    same = {key for key in ("path", "device", "inode") if before.get(key) == now[key]}
    return "inode" not in same or not same & {"path", "device"}
