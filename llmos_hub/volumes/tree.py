"""Files below a directory, reached without ever leaving it.

Every path is walked from a descriptor of the directory, part by part and without following links, so that neither ``..``
nor a link, even one made in between, leads out. All functions block: call them in a thread.

An upload is written to a file beside its target, which takes its place when it is complete. The size of that file says
where to go on: the state of an upload is on disk only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from llmos.errors import AlreadyExists, Conflict, Insufficient, Invalid, NotFound

__all__ = ["FileEntry", "Tree", "Upload", "parts_of"]

_LONGEST_NAME: Final = 255  # bytes, the limit of Linux's file systems
_LONGEST_PATH: Final = 4096
_DEEPEST: Final = 64
_UPLOAD: Final = re.compile(r"[0-9a-f]{16}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK: Final = frozenset({errno.ELOOP, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, a directory or something else in a volume.

    Attributes
    ----------
    name
        Its name in its directory.
    type
        ``file``, ``directory``, ``link`` (never followed) or ``other``.
    size
        Bytes of a file, else 0.
    modified
        Time of the last change.
    version
        Changes with the file's content.
    """

    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    modified: datetime
    version: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A piece of an upload.

    Attributes
    ----------
    id
        16 hexadecimal digits that stand for one version of the sender's file.
    offset
        Where the piece begins; at most where the upload has got to.
    total
        Size of the whole file.
    """

    id: str
    offset: int
    total: int


def parts_of(path: str) -> list[str]:
    """Return the parts of a path below a volume; none for the volume itself.

    Raises
    ------
    Invalid
        It could lead out of the volume, or can't be a path.
    """
    inner = path.removesuffix("/")
    parts = inner.split("/") if inner else []
    shown = path[:80]
    try:
        size = len(os.fsencode(path))
        longest = max((len(os.fsencode(part)) for part in parts), default=0)
    except UnicodeEncodeError:
        raise Invalid("path: it has half a character in it, which is no Unicode text.") from None
    if path.startswith("/"):
        raise Invalid(f'path: "{shown}" begins with "/". Paths are below the volume: write it without.')
    if any(part in {"", ".", ".."} for part in parts):
        raise Invalid(f'path: "{shown}" has an empty part, "." or "..", which are not allowed here.')
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise Invalid("path: it has a control character in it.")
    if size > _LONGEST_PATH or longest > _LONGEST_NAME or len(parts) > _DEEPEST:
        raise Invalid(
            f'path: "{shown}…" is too long: {_LONGEST_NAME} bytes for a name, {_LONGEST_PATH} for all, {_DEEPEST} levels.'
        )
    return parts


class Tree:
    """The files of one volume.

    Parameters
    ----------
    root
        The directory; trusted, unlike all that is below.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def stat(self, path: str) -> FileEntry:
        """Return what is at a path.

        Raises
        ------
        NotFound, Invalid
            There is nothing, or it is behind a link.
        """
        with self._parent(path) as (parent, name), _explained(path):
            return _entry(name or "", os.stat(name or ".", dir_fd=parent, follow_symlinks=False))

    def entries(self, path: str, *, after: str = "", limit: int = 1000) -> list[FileEntry]:
        """Return at most `limit` entries of a directory, by name, those after a name.

        Raises
        ------
        NotFound, Invalid
            There is no such directory, or it is behind a link.
        """
        with self._directory(parts_of(path), path) as fd, os.scandir(fd) as entries:
            # never more names in memory than asked for, however many there are
            names = heapq.nsmallest(limit, (each.name for each in entries if each.name > after))
            found = []
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found.append(_entry(name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
            return found

    def open(self, path: str) -> tuple[int, FileEntry]:
        """Return a descriptor to read a file, and what it is.

        Raises
        ------
        NotFound, Invalid
            There is no such file, or it is something else.
        """
        with self._parent(path) as (parent, name), _explained(path):
            if not name:
                raise Invalid(f'path: "{path[:80]}" is a directory, not a file.')
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            entry = _entry(name, os.fstat(fd))
            if entry.type != "file":
                os.close(fd)
                raise Invalid(f'path: "{path[:80]}" is no file ({entry.type}).')
            return fd, entry

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it; one that exists is fine.

        Raises
        ------
        AlreadyExists, Invalid
            Something else is there, or it is behind a link.
        """
        with self._directory(parts_of(path), path, create=True):
            pass

    def progress(self, path: str, upload: str) -> int:
        """Return how many bytes of an upload have arrived."""
        with contextlib.suppress(NotFound), self._parent(path) as (parent, name), contextlib.suppress(OSError):
            found = os.stat(_beside(name, upload), dir_fd=parent, follow_symlinks=False)
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0

    @contextlib.contextmanager
    def receive(self, path: str, upload: Upload) -> Iterator[int]:
        """Yield a descriptor, at its place, to write a piece of an upload to; cut off if the block fails.

        Raises
        ------
        Conflict
            The upload hasn't got to that place.
        Insufficient
            The disk is full.
        """
        with self._parent(path, create=True) as (parent, name), _explained(path):
            if not name:
                raise Invalid('path: it needs the name of a file, such as "data.csv".')
            part = _beside(name, upload.id)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(part, flags, 0o600, dir_fd=parent)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                    raise Invalid(f'path: "{part}" is in the way of the upload. Remove it.')
                if upload.offset > found.st_size:
                    raise Conflict(
                        f"{found.st_size} bytes of this upload have arrived, so it can't go on at {upload.offset}."
                    )
                os.ftruncate(fd, upload.offset)
                os.lseek(fd, upload.offset, os.SEEK_SET)
                try:
                    yield fd
                    os.fdatasync(fd)  # what is acknowledged is on disk
                except BaseException:
                    os.ftruncate(fd, upload.offset)
                    raise
                _own(fd, parent)
            finally:
                os.close(fd)

    def finish(self, path: str, upload: Upload) -> FileEntry:
        """Put a complete upload in the place of its target, and return what is there now.

        Raises
        ------
        Conflict
            It isn't complete.
        """
        with self._parent(path) as (parent, name), _explained(path):
            part = _beside(name, upload.id)
            found = os.stat(part, dir_fd=parent, follow_symlinks=False)
            if found.st_size != upload.total:
                raise Conflict(f"{found.st_size} of {upload.total} bytes have arrived: the upload is not complete.")
            os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
            return _entry(name, os.stat(name, dir_fd=parent, follow_symlinks=False))

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link, an empty directory or, with `recursive`, any directory.

        Raises
        ------
        NotFound, Invalid
            There is nothing, or a directory that isn't empty; the volume itself can't be removed so.
        """
        with self._parent(path) as (parent, name), _explained(path):
            if not name:
                raise Invalid(
                    "path: it is empty. Name what is to be removed; for the whole volume: llmos delete volume"
                )
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
            elif recursive:
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.rmdir(name, dir_fd=parent)

    @contextlib.contextmanager
    def _directory(self, parts: list[str], path: str, *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of a directory, which closes with the block."""
        with _explained(path):
            fd = os.open(self._root, _DIRECTORY)
            try:
                for part in parts:
                    if create:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(part, 0o700, dir_fd=fd)
                            made = os.open(part, _DIRECTORY, dir_fd=fd)
                            try:
                                _own(made, fd)
                            finally:
                                os.close(made)
                    inner = os.open(part, _DIRECTORY, dir_fd=fd)
                    os.close(fd)
                    fd = inner
                yield fd
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Yield a descriptor of the directory that holds what is at a path, and its name there; "" for the volume."""
        parts = parts_of(path)
        with self._directory(parts[:-1], path, create=create) as fd:
            yield fd, parts[-1] if parts else ""


def _entry(name: str, found: os.stat_result) -> FileEntry:
    kinds: tuple[tuple[int, Literal["file", "directory", "link", "other"]], ...] = (
        (stat.S_IFREG, "file"),
        (stat.S_IFDIR, "directory"),
        (stat.S_IFLNK, "link"),
    )
    kind: Literal["file", "directory", "link", "other"] = next(
        (word for bits, word in kinds if stat.S_IFMT(found.st_mode) == bits), "other"
    )
    return FileEntry(
        name,
        kind,
        found.st_size if kind == "file" else 0,
        datetime.fromtimestamp(found.st_mtime, UTC),
        f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}",
    )


def _beside(name: str, upload: str) -> str:
    """Return the name of the file that holds an unfinished upload."""
    if not _UPLOAD.fullmatch(upload):
        raise Invalid("upload: 16 hexadecimal digits that stand for the file as it is now.")
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".upload-{digest}-{upload}.part"


def _own(fd: int, directory: int) -> None:
    """Give what was made to the owner of the directory that it is in, which only root has to do."""
    above, found = os.fstat(directory), os.fstat(fd)
    if (above.st_uid, above.st_gid) != (found.st_uid, found.st_gid) and os.geteuid() == 0:
        os.fchown(fd, above.st_uid, above.st_gid)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Raise the errors of the system in words."""
    shown = path[:80]
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f'There is no "{shown}" in the volume.') from None
    except NotADirectoryError:
        raise Invalid(f'path: a part of "{shown}" is a file or a link. Links are not followed here.') from None
    except (IsADirectoryError, FileExistsError):
        raise AlreadyExists(f'A directory is at "{shown}".') from None
    except OSError as error:
        if error.errno in _LINK:
            raise Invalid(f'path: "{shown}" leads over a link. Links are not followed here.') from None
        if error.errno == errno.ENOTEMPTY:
            raise Invalid(f'path: the directory "{shown}" is not empty. With all that is in it: -r') from None
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise Insufficient("The disk is full. Make room on it, then go on: what has arrived stays.") from None
        raise Invalid(f'path: "{shown}": {os.strerror(error.errno or 0)}.') from None
