"""Volumes on a workstation: directories in the data directory.

``NAMESPACE/NAME.UID`` holds a volume's files; ``.links/NAMESPACE/NAME`` leads there, by which notebook
servers find it; ``.snapshots/NAMESPACE/NAME.UID`` is a snapshot, ``.partial/UID`` a copy that isn't complete, and ``.deleted/UID`` is being removed. Directories are
private to the account that runs the platform and people's servers. Nothing is set aside: the space in use is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmos.errors import Insufficient, LLMOSError, NotFound
from llmos.resources.quantities import format_bytes
from llmos_hub.volumes.base import Changed, DataSource, VolumeRef, VolumeState, VolumeWish
from llmos_hub.volumes.copying import Stopped, can_clone, copy_tree

__all__ = ["LocalVolumes", "directory_of", "measure"]

_PART: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_DELETED: Final = ".deleted"
_SNAPSHOTS: Final = ".snapshots"
_PARTIAL: Final = ".partial"
_PROGRESS: Final = 0.5
"""Seconds between looks at a copy."""
_EVERY: Final = 60.0
"""Seconds between two measurements of a volume."""
_SHARE: Final = 50.0
"""Multiple of a measurement's own time until the next one, so that volumes of millions of files are measured rarely."""
_RETRY: Final = 30.0
"""Seconds after which to look again for space on the disk."""

logger = logging.getLogger(__name__)


def directory_of(root: Path, ref: VolumeRef) -> Path:
    """Return the directory of a volume.

    Raises
    ------
    ValueError
        A part of the reference could lead elsewhere.
    """
    if not (_PART.fullmatch(ref.namespace) and _PART.fullmatch(ref.name) and _UID.fullmatch(ref.uid)):
        raise ValueError(f"{ref} is no volume")
    return root / ref.namespace / f"{ref.name}.{ref.uid}"


def measure(directory: Path, stop: threading.Event | None = None) -> int:
    """Return the bytes that a directory takes on its disk, with all that is below; no link is followed.

    What disappears meanwhile, or can't be read, is left out.
    """
    total, linked = 0, set()
    with contextlib.suppress(OSError):
        for _, directories, files, fd in os.fwalk(directory, follow_symlinks=False):
            if stop is not None and stop.is_set():
                break
            for name in (*directories, *files):
                with contextlib.suppress(OSError):
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if found.st_nlink > 1 and name in files:
                        if (found.st_dev, found.st_ino) in linked:
                            continue
                        linked.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
    return total


@dataclass(slots=True)
class _Measured:
    """The last measurement of a volume, and when the next one is due on the clock of `time.monotonic`."""

    used: int
    due: float


@dataclass(slots=True)
class _Copy:
    """A copy that is under way, or has failed with an `error` that nobody has seen yet; sizes are in bytes."""

    source: Path
    target: Path
    replaces: str = ""
    total: int = 0
    done: int = 0
    error: str = ""

    def tell(self, size: int) -> None:
        """Count what was copied."""
        self.done += size


class LocalVolumes:
    """A provider of directories.

    Parameters
    ----------
    root
        The directory of all volumes; created when the first one is.
    links
        The directory of links to them.
    """

    def __init__(self, root: Path, links: Path) -> None:
        self._root = root
        self._links = links
        self._changed: list[Changed] = []
        self._measured: dict[VolumeRef, _Measured] = {}
        self._copies: dict[Path, _Copy] = {}
        self._restored: set[tuple[VolumeRef, str]] = set()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._stop = threading.Event()

    def subscribe(self, changed: Changed) -> None:
        """Call `changed` when background work for a volume has ended."""
        self._changed.append(changed)

    async def ensure(self, ref: VolumeRef, wish: VolumeWish) -> VolumeState:
        """Make the directory if it is new, and return its state; see `llmos_hub.volumes.base.Volumes`."""
        directory = directory_of(self._root, ref)
        if not await asyncio.to_thread(directory.is_dir):
            if wish.had is not None:
                message = f"Its directory {directory} is gone. Put it back from a backup, or delete the volume."
                return VolumeState("Failed", reason="Lost", message=message, look_again=_RETRY)
            if refusal := await asyncio.to_thread(self._refuse, ref, wish.size):
                return VolumeState("Failed", reason="InsufficientStorage", message=refusal, look_again=_RETRY)
            if wish.source is not None:
                return self._copied(ref, self._place_of(wish.source), directory)
            await asyncio.to_thread(self._make, directory)
        await asyncio.to_thread(self._link, self._link_of(ref), directory)
        measured = self._measured.get(ref)
        if measured is None or time.monotonic() >= measured.due:
            self._begin(ref, self._measure(ref, directory))
        used = measured.used if measured else None
        if (
            wish.had is not None
            and wish.size > wish.had
            and (refusal := await asyncio.to_thread(self._refuse, ref, wish.size))
        ):
            return VolumeState("Failed", wish.had, used, "InsufficientStorage", refusal, look_again=_RETRY)
        return VolumeState("Ready", wish.size, used, look_again=_EVERY)

    async def snapshot(self, ref: VolumeRef, volume: VolumeRef) -> VolumeState:
        """Copy the volume's directory; see `llmos_hub.volumes.base.Volumes`."""
        target = directory_of(self._root / _SNAPSHOTS, ref)
        if await asyncio.to_thread(target.is_dir):
            return VolumeState("Ready", used=await asyncio.to_thread(measure, target))
        return self._copied(ref, directory_of(self._root, volume), target)

    async def restore(self, volume: VolumeRef, snapshot: VolumeRef, request: str, wish: VolumeWish) -> VolumeState:
        """Copy the snapshot's directory, and put it into the place of the volume's."""
        del wish
        if (volume, request) in self._restored:
            return VolumeState("Ready")
        source = directory_of(self._root / _SNAPSHOTS, snapshot)
        return self._copied(volume, source, directory_of(self._root, volume), replaces=request)

    async def delete_snapshot(self, ref: VolumeRef) -> bool:
        """Move the directory away at once, and remove its files in the background."""
        await asyncio.to_thread(self._put_away, directory_of(self._root / _SNAPSHOTS, ref), ref.uid)
        self._sweep()
        return True

    def source(self, ref: VolumeRef) -> str:
        """Return its directory."""
        return str(directory_of(self._root, ref))

    async def hide(self, ref: VolumeRef) -> None:
        """Remove the link by which servers find it."""
        await asyncio.to_thread(self._link_of(ref).unlink, missing_ok=True)

    async def delete(self, ref: VolumeRef) -> bool:
        """Move the directory away at once, and remove its files in the background."""
        directory = directory_of(self._root, ref)
        self._measured.pop(ref, None)
        await self.hide(ref)
        await asyncio.to_thread(self._put_away, directory, ref.uid)
        self._sweep()
        return True

    async def close(self) -> None:
        """Stop measuring and removing."""
        self._stop.set()
        tasks = tuple(self._tasks.values())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._stop.clear()

    def _refuse(self, ref: VolumeRef, size: int) -> str:
        """Return why a volume can't have a size; empty if it can."""
        place = next(path for path in (self._root, *self._root.parents) if path.is_dir())
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
        measured = self._measured.get(ref)
        missing = size - (measured.used if measured else 0)
        if missing <= free:
            return ""
        return (
            f"{ref.name} needs {format_bytes(missing)} more, and the disk has {format_bytes(free)} free. Ask for less, or make "
            "room on the disk: it continues by itself then."
        )

    @staticmethod
    def _make(directory: Path) -> None:
        for each in (directory.parent.parent, directory.parent, directory):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _place_of(self, source: DataSource) -> Path:
        return directory_of(self._root / _SNAPSHOTS if source.kind == "snapshot" else self._root, source.ref)

    def _copied(self, ref: VolumeRef, source: Path, target: Path, *, replaces: str = "") -> VolumeState:
        """Return how far a copy is; start it, also again after a failure that was reported."""
        copy = self._copies.get(target)
        if copy is None:
            copy = self._copies[target] = _Copy(source, target, replaces)
            self._begin(target, self._copy(ref, copy))
        if copy.error:
            del self._copies[target]
            return VolumeState("Failed", reason="CopyFailed", message=copy.error, look_again=_RETRY)
        total = f" of {format_bytes(copy.total)}" if copy.total else ""
        message = f"{format_bytes(copy.done)}{total} copied."
        return VolumeState("Working", reason="Copying", message=message, look_again=_PROGRESS)

    async def _copy(self, ref: VolumeRef, copy: _Copy) -> None:
        try:
            await asyncio.to_thread(self._copy_now, ref, copy)
        except Stopped:
            return  # begun again at the next start
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            copy.error = (
                "The disk is full. Make room on it: it continues by itself then." if full else f"{error.strerror}."
            )
        except LLMOSError as error:
            copy.error = error.message
        else:
            del self._copies[copy.target]
            if copy.replaces:
                self._restored.add((ref, copy.replaces))
                self._measured.pop(ref, None)
        for changed in self._changed:
            changed(ref)

    def _copy_now(self, ref: VolumeRef, copy: _Copy) -> None:
        if not copy.source.is_dir():
            raise NotFound(f"There is nothing to copy: {copy.source} is gone. Put it back from a backup.")
        copy.total = measure(copy.source, self._stop)
        found = os.statvfs(self._root)
        free = found.f_bavail * found.f_frsize
        partial = self._root / _PARTIAL / ref.uid
        partial.parent.mkdir(mode=0o700, exist_ok=True)
        if copy.total > free and not can_clone(partial.parent):
            raise Insufficient(
                f"The copy needs {format_bytes(copy.total)}, and the disk has {format_bytes(free)} free. Make room on it: it "
                "continues by itself then."
            )
        if partial.exists():
            shutil.rmtree(partial)
        copy_tree(copy.source, partial, copy.tell, self._stop)
        os.sync()  # what has been renamed must not be found empty after a power cut
        copy.target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if copy.replaces:
            self._put_away(copy.target, f"{ref.uid}.{time.time_ns()}")
        partial.rename(copy.target)

    def _link_of(self, ref: VolumeRef) -> Path:
        directory_of(self._root, ref)  # raises an error for a reference that leads elsewhere
        return self._links / ref.namespace / ref.name

    @staticmethod
    def _link(link: Path, directory: Path) -> None:
        with contextlib.suppress(OSError):
            if link.readlink() == directory:
                return
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(directory)

    def _put_away(self, directory: Path, uid: str) -> None:
        away = self._root / _DELETED
        with contextlib.suppress(FileNotFoundError):
            away.mkdir(mode=0o700, exist_ok=True)
            directory.rename(away / uid)

    def _begin(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        """Run some work in the background, unless work of that key runs."""
        if key in self._tasks:
            work.close()
            return
        self._tasks[key] = task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def _sweep(self) -> None:
        self._begin(_DELETED, asyncio.to_thread(self._remove))

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for each in sorted((self._root / _DELETED).iterdir()):
                if self._stop.is_set():
                    return
                shutil.rmtree(each, onerror=lambda _, path, error: logger.warning("%s stays: %s", path, error[1]))

    async def _measure(self, ref: VolumeRef, directory: Path) -> None:
        began = time.monotonic()
        used = await asyncio.to_thread(measure, directory, self._stop)
        if self._stop.is_set():
            return
        now = time.monotonic()
        self._measured[ref] = _Measured(used, now + max(_EVERY, _SHARE * (now - began)))
        for changed in self._changed:
            changed(ref)
