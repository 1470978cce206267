"""Logs that processes write themselves and hold open: opening, rotation by copying and truncating, reading from the end.

A writer opens its log for appending, so it continues at the new end after a truncation. Reading needs the files only, so
that any process can show logs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["LogFollower", "append", "last_lines", "open_log", "rotate", "rotate_all"]

_BLOCK: Final = 65536
_LINE: Final = 16384
"""Maximum bytes of a line that are shown; a program may write megabytes without a line end."""


def open_log(path: Path | str, flags: int = os.O_WRONLY | os.O_APPEND) -> int:
    """Return a descriptor of a log to append to; it is created readable by its owner alone."""
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def append(path: Path, text: str) -> None:
    """Append to a log; errors, such as a full disk, are ignored."""
    with contextlib.suppress(OSError):
        fd = open_log(path)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _older(path: Path, number: int = 1) -> Path:
    return path.with_name(f"{path.name}.{number}")


def rotate(path: Path, *, max_bytes: int, keep: int) -> bool:
    """Rotate a log if it is too long; return whether it was.

    Data written between the last read and the truncation is lost, as always with copy-and-truncate.

    Parameters
    ----------
    max_bytes
        The longest log that is left as it is.
    keep
        Number of older logs to keep beside it.

    Raises
    ------
    OSError
        It can't be copied, as on a full disk; then nothing has changed.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        source = path.open("rb")
    except FileNotFoundError:
        return False
    aside = path.with_name(f"{path.name}.new")
    try:
        with source, open(aside, "wb", opener=open_log) as target:
            shutil.copyfileobj(source, target, _BLOCK)
            target.flush()
            for number in range(keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    _older(path, number).replace(_older(path, number + 1))
            aside.replace(_older(path))
            if rest := source.read():
                target.write(rest)
            os.truncate(path, 0)
    except OSError as error:
        aside.unlink(missing_ok=True)  # a partial copy would only take up disk space
        if isinstance(error, FileNotFoundError):  # removed meanwhile
            return False
        raise
    return True


def rotate_all(directory: Path, *, max_bytes: int, keep: int) -> None:
    """Rotate every ``*.log`` below the directory; errors, such as a full disk, are ignored."""
    for path in directory.rglob("*.log"):
        with contextlib.suppress(OSError):
            rotate(path, max_bytes=max_bytes, keep=keep)


class _Lines:
    r"""A splitter of bytes into lines of limited length; of a progress bar (``\r``) only the newest state is kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that are complete now."""
        pieces = (self._rest + data).split(b"\n")
        self._rest = pieces.pop()
        for piece in pieces:
            if not self._skipping:
                yield self._line(piece)
            self._skipping = False
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > _LINE:
            newest = self._rest.rpartition(b"\r")[2]
            if len(newest) > _LINE:
                yield self._line(newest)
                self._skipping, newest = True, b""
            self._rest = newest

    def end(self) -> Iterator[str]:
        """Yield the last line if it has no end."""
        if self._rest:
            yield self._line(self._rest)
        self._rest, self._skipping = b"", False

    @staticmethod
    def _line(piece: bytes) -> str:
        text = piece.rstrip(b"\r").rpartition(b"\r")[2]
        cut = " …" if len(text) > _LINE else ""
        return text[:_LINE].decode(errors="replace") + cut


def _start_of_tail(file: BinaryIO, size: int, wanted: int, floor: int = 0) -> tuple[int, int]:
    """Return the position where the last `wanted` lines before `size` begin, and how many lines there are from it."""
    position, found = size, 1
    while position > floor:
        begin = max(floor, position - _BLOCK)
        file.seek(begin)
        block = file.read(position - begin)
        end = len(block)
        if position == size and block.endswith(b"\n"):
            end -= 1
        while (newline := block.rfind(b"\n", 0, end)) >= 0:
            if found >= wanted:
                return begin + newline + 1, found
            found, end = found + 1, newline
        position = begin
    return floor, found if size > floor else 0


def last_lines(path: Path, count: int, *, start: int = 0) -> list[str]:
    """Return the last lines of a log; none if it can't be read.

    Parameters
    ----------
    count
        Maximum number of lines.
    start
        Position in the file from which on they are wanted, such as the beginning of the newest start; if the file was
        rotated since, they begin before the file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin, _ = _start_of_tail(file, size, count, start if start <= size else 0)
            begin = max(begin, size - count * _LINE)
            file.seek(begin)
            data = file.read(size - begin)
    except OSError:
        return []
    lines = _Lines()
    return [*lines.feed(data), *lines.end()][-count:]


class LogFollower:
    """A reader of one log that follows it across rotations, and to its end even if it is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = _Lines()
        self._file: BinaryIO | None = None
        self._offset = 0
        self._older = self._inode(_older(path))
        self._rotated = False
        self._backlog: deque[tuple[BinaryIO, int, int]] = deque()

    @staticmethod
    def _inode(path: Path) -> int:
        try:
            return path.stat().st_ino
        except OSError:
            return 0

    def _size(self) -> int:
        if self._file is None:
            with contextlib.suppress(OSError):
                self._file = self.path.open("rb")
        return os.fstat(self._file.fileno()).st_size if self._file else 0

    def _add(self, file: BinaryIO, start: int, stop: int) -> None:
        if stop > start:
            self._backlog.append((file, start, stop))
        elif file is not self._file:
            file.close()

    def begin(self, tail: int | None) -> None:
        """Put the lines to show first into the backlog: the last `tail` lines, or all."""
        self._offset = self._size()
        if self._file is None or tail == 0:
            return
        start, found = _start_of_tail(self._file, self._offset, tail) if tail is not None else (0, 0)
        if tail is None or found < tail:
            with contextlib.suppress(OSError):
                older = _older(self.path).open("rb")
                end = older.seek(0, os.SEEK_END)
                self._add(older, _start_of_tail(older, end, tail - found)[0] if tail is not None else 0, end)
        self._add(self._file, start, self._offset)

    @property
    def pending(self) -> bool:
        """True while some of the initial backlog is still to be read."""
        return bool(self._backlog)

    def read(self) -> list[str] | None:
        """Return the next lines, a block at a time; None if there is nothing new."""
        if not self._backlog:
            self._look()
        if not self._backlog:
            return None
        file, start, stop = self._backlog.popleft()
        file.seek(start)
        wanted = min(stop - start, _BLOCK)
        data = file.read(wanted)
        if file is self._file and len(data) < wanted:
            self._offset = start + len(data)  # it was truncated meanwhile; the rest is in the older file
        elif data and start + len(data) < stop:
            self._backlog.appendleft((file, start + len(data), stop))
        elif file is not self._file:
            file.close()
        return list(self._lines.feed(data))

    def _look(self) -> None:
        """Find new data, also in a file that was rotated meanwhile."""
        size = self._size()  # before the check, so that it isn't the size after a truncation that isn't known yet
        inode = self._inode(_older(self.path))
        if inode not in {0, self._older} and not self._rotated:
            self._rotated = True  # the truncation follows immediately: look again at the next turn
            return
        if self._rotated:
            with contextlib.suppress(OSError):
                older = _older(self.path).open("rb")
                self._add(older, self._offset, older.seek(0, os.SEEK_END))
            self._offset, self._older, self._rotated = 0, inode, False
            size = self._size()
        self._offset = min(self._offset, size)
        if self._file is not None:
            self._add(self._file, self._offset, size)
        self._offset = size

    def end(self) -> list[str]:
        """Close the files, and return the last line if it has no end."""
        for file in (self._file, *(entry[0] for entry in self._backlog)):
            if file is not None:
                file.close()
        self._backlog.clear()
        return list(self._lines.end())
