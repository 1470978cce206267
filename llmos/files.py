"""Small files that are replaced whole."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

__all__ = ["overwrite", "replace_file", "write_private"]


def replace_file(path: Path, text: str, *, mode: int | None = None, sync: bool = False) -> None:
    """Write a file atomically: a reader finds the old or the new content.

    Parameters
    ----------
    mode
        Its permissions; None: those of any new file.
    sync
        True if the content must survive a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666 if mode is None else mode)
        with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - by descriptor, for its mode
            if mode is not None:
                os.fchmod(fd, mode)
            file.write(text)
            if sync:
                file.flush()
                os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_private(path: Path, text: str) -> None:
    """Write a file atomically and durably, readable by its owner alone."""
    replace_file(path, text, mode=0o600, sync=True)


def overwrite(path: Path, text: str) -> None:
    """Write into the blocks that a file already has, which works on a full disk; spaces replace the rest of the old text.

    Raises
    ------
    OSError
        The file doesn't exist or has too few blocks.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        content = text.encode().ljust(found.st_size)
        if len(content) > max(found.st_size, found.st_blocks * 512):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.pwrite(fd, content, 0)  # one call, so that no reader finds half of it
    finally:
        os.close(fd)
