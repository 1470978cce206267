"""A guard against a full disk: before the disk is full, writes to the database are refused; reads continue.

Valkey exits when it can't write what it is about to acknowledge. So it is told in time to refuse writes, by requiring
more replicas than it has (``min-replicas-to-write``): the only setting that stops writes alone, and at run time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmos.errors import Unavailable
from llmos_hub.supervisor.console import tilde
from llmos_hub.valkey.resp import ask

__all__ = ["DiskGuard", "FreeSpace", "free_space", "refuse_full"]

_RESERVE: Final = 64 * 1024**2  # bytes below which writes are refused: a second of a fast download
_RESERVE_INODES: Final = 256
_ENOUGH: Final = 1.5  # multiple of the reserve at which writes are accepted again
_START: Final = 16 * 1024**2  # bytes that a start needs: logs, the Hub's journal
_PERIOD: Final = 1.0  # seconds between two checks
_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free space of a disk for users other than root.

    Attributes
    ----------
    free
        Free bytes.
    inodes
        Number of files that can still be created; None if it isn't limited.
    """

    free: int
    inodes: int | None

    def below(self, *, free: float = _RESERVE, inodes: float = _RESERVE_INODES) -> bool:
        """Return whether less is free than these limits."""
        return self.free < free or (self.inodes is not None and self.inodes < inodes)

    def __str__(self) -> str:
        if self.inodes is not None and self.inodes < _RESERVE_INODES * _ENOUGH:
            return f"room for {self.inodes} more files"
        return f"{self.free / 1e6:.0f} MB free"


def free_space(directory: Path) -> FreeSpace:
    """Return the free space of the disk that a directory is on.

    Raises
    ------
    OSError
        It can't be determined.
    """
    found = os.statvfs(directory)
    return FreeSpace(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def refuse_full(directory: Path) -> None:
    """Refuse what has to write on a disk without space even for logs.

    Raises
    ------
    Unavailable
        The disk is full.
    """
    with contextlib.suppress(OSError):
        room = free_space(directory)
        if room.below(free=_START, inodes=_RESERVE_INODES / 4):
            raise Unavailable(f"The disk of {directory} is full ({room}). Make room on it, then try again.")


class DiskGuard:
    """A check of the disk every second, which stops and resumes writes.

    Parameters
    ----------
    directory
        A directory on the disk.
    url
        The embedded Valkey's address with its password; empty if there is none.
    say
        Prints a line on the console.
    resumed
        Called when there is room again.
    """

    def __init__(self, directory: Path, url: str, say: Callable[[str], None], resumed: Callable[[], None]) -> None:
        self.full: FreeSpace | None = None
        """Free space when writes were stopped; None while they are accepted."""
        self._directory = directory
        self._url = url
        self._say = say
        self._resumed = resumed
        self._applied: bool | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            with contextlib.suppress(OSError):
                await self.look(await asyncio.to_thread(free_space, self._directory))
            await asyncio.sleep(_PERIOD)

    async def look(self, room: FreeSpace) -> None:
        """Stop or resume writes as the free space requires."""
        if self.full is None and room.below():
            self.full = room
            self._say(
                f"the disk of {tilde(self._directory)} is nearly full ({room}): nothing more is saved until there is room; "
                "running models continue"
            )
        elif self.full is not None and not room.below(free=_RESERVE * _ENOUGH, inodes=_RESERVE_INODES * _ENOUGH):
            self.full = None
            self._say(f"there is room on the disk again ({room}): data is saved again")
            self._resumed()
        # repeated while the disk is full: a Valkey that was restarted has lost the setting
        if self._url and (self.full is not None or self._applied is not False):
            await self._tell(stop=self.full is not None)

    async def _tell(self, *, stop: bool) -> None:
        with contextlib.suppress(OSError):  # Valkey is starting; repeated with the next check
            command = ("CONFIG", "SET", "min-replicas-to-write", "1" if stop else "0")
            answer = (await ask(self._url, command, timeout=_TIMEOUT))[0]
            self._applied = stop if answer == "OK" else None
