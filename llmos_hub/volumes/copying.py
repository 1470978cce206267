"""Copies of directory trees: shared blocks where the file system can (reflinks), real copies where it can't.

The source belongs to people and may change meanwhile: it is walked by descriptors, and links are copied, never followed.
All functions block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["Stopped", "can_clone", "copy_tree"]

_FICLONE: Final = 0x40049409  # ioctl_ficlone(2)
_PIECE: Final = 16 * 1024 * 1024
_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopped(Exception):
    """The copy was told to stop."""


def can_clone(directory: Path) -> bool:
    """Return whether files in a directory can share blocks."""
    with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as copy:
        source.write(b"\0" * 65536)
        source.flush()
        return _clone(source.fileno(), copy.fileno())


def copy_tree(source: Path, target: Path, tell: Callable[[int], None], stop: threading.Event) -> None:
    """Copy the files, directories and links below a directory, with modes, times and, as root, owners.

    Parameters
    ----------
    source
        The directory to copy.
    target
        A new directory, which nobody else can reach.
    tell
        Called with the bytes of each piece that is copied.
    stop
        Ends the copy when it is set.

    Raises
    ------
    Stopped
        `stop` was set.
    OSError
        Something can't be read or written; what was copied stays.
    """
    target.mkdir(mode=0o700, parents=True)
    directories = []
    for path, inner, names, fd in os.fwalk(source, follow_symlinks=False, onerror=_raise):
        here = target / os.path.relpath(path, source)
        directories.append((here, os.fstat(fd)))
        for name in inner:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                (here / name).mkdir(mode=0o700)
            else:  # a link to a directory, or what has become something else
                _copy_one(fd, name, here / name, tell, stop)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                _copy_one(fd, name, here / name, tell, stop)
    for here, found in reversed(directories):  # last, as its entries change a directory's time
        _attributes(here, found)


def _copy_one(directory: int, name: str, target: Path, tell: Callable[[int], None], stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(os.readlink(name, dir_fd=directory))
        return
    if not stat.S_ISREG(found.st_mode):
        return  # sockets, pipes and devices hold no data
    source = os.open(name, _READ, dir_fd=directory)
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            return
        copy = os.open(target, _WRITE, 0o600)
        try:
            if _clone(source, copy):
                tell(found.st_size)
            else:
                _copy(source, copy, tell, stop)
        finally:
            os.close(copy)
        _attributes(target, found)
    finally:
        os.close(source)


def _clone(source: int, copy: int) -> bool:
    """Let the copy share the source's blocks; return False where the file system can't."""
    try:
        fcntl.ioctl(copy, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNABLE:
            return False
        raise
    return True


def _copy(source: int, copy: int, tell: Callable[[int], None], stop: threading.Event) -> None:
    while True:
        if stop.is_set():
            raise Stopped
        try:
            done = os.copy_file_range(source, copy, _PIECE)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            done = os.write(copy, data) if (data := os.read(source, 1024 * 1024)) else 0
        if not done:
            return
        tell(done)


def _attributes(path: Path, found: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
    path.chmod(stat.S_IMODE(found.st_mode) & 0o777)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
