"""Logs of replicas: rotation while they are written, reading from the end, and following.

A replica writes directly to its file, opened for appending, and outlives the controller. So a file that is full is
copied (to ``log.1``) and truncated, and the writer continues at its new end. Reading needs the files only, so that
processes other than the backend's can show logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from llmos.errors import NotFound
from llmos_hub.backends.local.records import read_replica
from llmos_hub.workload import WorkloadRef

__all__ = ["last_lines", "read_logs", "rotate"]

_BLOCK: Final = 65536
_LINE: Final = 16384
"""Maximum bytes of a line that are shown; a program may write megabytes without a line end."""
_STATUS_LINE: Final = 500
_STATUS_LINES: Final = 20
_POLL: Final = 0.1
"""Seconds between checks for new lines; polling works on every file system."""
_REPLICA: Final = re.compile(r"^(.+)-(\d+)-(\d+)$")


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def rotate(path: Path, limit: int) -> bool:
    """Rotate the log if it is over `limit` bytes; return whether it was.

    Data written between the last read and the truncation is lost, as always with copy-and-truncate.
    """
    try:
        if path.stat().st_size <= limit:
            return False
        aside = path.with_name(path.name + ".new")
        with path.open("rb") as source, aside.open("wb") as target:
            os.fchmod(target.fileno(), 0o600)
            shutil.copyfileobj(source, target, _BLOCK)
            target.flush()
            aside.replace(_older(path))
            if rest := source.read():
                target.write(rest)
            os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True


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


def last_lines(path: Path, *, start: int = 0) -> list[str]:
    """Return the last lines of one start of a replica, shortened to fit into a status.

    Parameters
    ----------
    start
        Position in the file where this start begins; if the file was rotated since, it begins before the file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin, _ = _start_of_tail(file, size, _STATUS_LINES, start if start <= size else 0)
            begin = max(begin, size - _STATUS_LINES * _LINE)
            file.seek(begin)
            data = file.read(size - begin)
    except OSError:
        return []
    lines = _Lines()
    found = [*lines.feed(data), *lines.end()]
    return [line[:_STATUS_LINE] for line in found[-_STATUS_LINES:]]


class _File:
    """One replica's log, which is read across rotations, and to its end even if it is removed."""

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


def _replicas(workload: Path, replica: str | None) -> list[Path]:
    """Return the directories of existing replicas, in order of role, index and age."""
    found: list[tuple[str, int, int, Path]] = []
    with contextlib.suppress(OSError):
        for entry in workload.iterdir():
            name = _REPLICA.match(entry.name)
            if name and replica in {None, entry.name}:
                found.append((name[1], int(name[2]), int(name[3]), entry))
    return [entry for *_, entry in sorted(found)]


def _over(workload: Path, replica: str | None) -> bool:
    """Return whether nothing more will be written, since all replicas are gone or finished jobs."""
    if not (workload / "workload.json").exists():
        return True
    replicas = _replicas(workload, replica)
    records = (read_replica(path) for path in replicas)
    return all(record is not None and record[0].phase for record in records) and bool(replicas or replica)


def _poll(workload: Path, replica: str | None, files: dict[Path, _File]) -> tuple[list[str], bool, bool]:
    """Return new lines, whether there were none, and whether nothing more will be written."""
    over = _over(workload, replica)
    for path in _replicas(workload, replica):
        if path not in files:
            files[path] = _File(path / "log")
    lines: list[str] = []
    quiet = True
    for file in files.values():
        new = file.read()
        if new is not None:
            quiet = False
            lines += new
    return lines, quiet, over


async def read_logs(
    directory: Path, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
) -> AsyncIterator[str]:
    """Yield lines of the logs in a local backend's `directory`; see `Backend.logs`.

    Parameters
    ----------
    replica
        The id of a replica; None: all.
    tail
        Number of last lines of each; None: all (up to two files of `Options.log_bytes`).
    follow
        True to continue with new lines until the replicas are gone or finished.
    """
    workload = directory / ref.id
    if not await asyncio.to_thread((workload / "workload.json").exists):
        message = f"There is no log of {ref.name}: it was never started here, or it was deleted."
        raise NotFound(message)
    found = await asyncio.to_thread(_replicas, workload, replica)
    if replica is not None and not found:
        there = ", ".join(path.name for path in _replicas(workload, None)) or "none"
        message = f'{ref.name} has no replica "{replica}". There are: {there}.'
        raise NotFound(message)
    files = {path: _File(path / "log") for path in found}
    try:
        for file in files.values():
            await asyncio.to_thread(file.begin, tail)
            while file.pending:
                for line in await asyncio.to_thread(file.read) or ():
                    yield line
            if not follow:
                for line in file.end():
                    yield line
        while follow:
            lines, quiet, over = await asyncio.to_thread(_poll, workload, replica, files)
            for line in lines:
                yield line
            if quiet and over:
                break
            if quiet:
                await asyncio.sleep(_POLL)
        for file in files.values() if follow else ():
            for line in file.end():
                yield line
    finally:
        for file in files.values():
            file.end()
