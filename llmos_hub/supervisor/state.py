"""State that a supervisor leaves for the next one: ports, process records, status.

``platform.json`` is permanent (schema version, internal ports); the files in ``run`` are about running processes. All
files are written atomically.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llmos.errors import Conflict, Unavailable
from llmos.files import overwrite, write_private
from llmos_hub.names import DataDir
from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.supervisor.console import llmos_command
from llmos_hub.supervisor.platform_mark import mark_of

__all__ = ["SCHEMA", "ProcessRecord", "StateFiles", "read_json"]

SCHEMA: Final = 1
"""The layout of the data directory that this version writes."""

MIGRATIONS: Final[Mapping[int, Callable[[DataDir], None]]] = {}
"""Functions that migrate the layout of version N to N + 1, by N."""

_STOPS_WITHIN: Final = 120.0  # seconds to wait for a supervisor that is stopping
_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f:]|\{(?:socket|port|index|dir)\}")
"""Control characters, which break lines in logs; the colon, which separates the entries of ``PATH`` (people's own
packages are in their homes); and the placeholders that `llmos_hub.backends.local` replaces."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process that a supervisor started.

    Attributes
    ----------
    pid, start_time
        The process (`llmos_hub.processes.handle.ProcessHandle`).
    fingerprint
        Hash of its command and environment; a process with another one is not adopted.
    since
        Time of the start in seconds since the epoch.
    mark
        Mark of the platform that started it (`llmos_hub.supervisor.platform_mark`): a record in a copy of the data directory
        is ignored.
    """

    pid: int
    start_time: int
    fingerprint: str
    since: float
    mark: str = ""

    @property
    def handle(self) -> ProcessHandle:
        """The process."""
        return ProcessHandle(self.pid, self.start_time)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class StateFiles:
    """The state files of a data directory.

    Parameters
    ----------
    data_dir
        The platform's data directory.
    """

    def __init__(self, data_dir: DataDir) -> None:
        self.data_dir = data_dir
        self._lock: int | None = None

    @property
    def _records(self) -> Path:
        return self.data_dir.run / "processes"

    @property
    def _status(self) -> Path:
        return self.data_dir.run / "status.json"

    @property
    def _lock_file(self) -> Path:
        return self.data_dir.root / "supervisor.lock"

    @property
    def _platform(self) -> Path:
        return self.data_dir.root / "platform.json"

    def prepare(self) -> bool:
        """Create the directories; return True if the data directory is new.

        Raises
        ------
        Unavailable
            The directory can't be written, belongs to someone else, or has a path that can't be used.
        """
        root = self.data_dir.root
        _check_path(root)
        try:
            new = not self._platform.exists()
            for directory in (root, self.data_dir.run, self.data_dir.logs, self._records, self.data_dir.hub):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (root, self.data_dir.run):
                found = directory.lstat()
                if not stat.S_ISDIR(found.st_mode):
                    raise Unavailable(f"{directory} is no directory. Choose another: --data-dir DIR")
                if found.st_uid != os.geteuid():
                    raise Unavailable(f"{directory} belongs to someone else. Choose another: --data-dir DIR")
                directory.chmod(0o700)
            probe = root / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            raise Unavailable(f"{root} can't be written ({reason}). Choose another: --data-dir DIR") from exc
        return new

    def lock(self) -> None:
        """Lock the data directory until this process ends.

        Raises
        ------
        Conflict
            Another supervisor has the lock.
        """
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            root, llmos = self.data_dir.root, llmos_command()
            raise Conflict(
                f"LLMOS already runs on {root} (pid {pid}). Look: {llmos} status. Stop it: {llmos} down. "
                "For a second one give another --data-dir, --port and --gateway-port."
            ) from exc
        self._lock = fd
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the pid as well
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    async def lock_after_stop(self, waiting: Callable[[], None]) -> None:
        """Lock the data directory; wait for a supervisor that is stopping.

        Parameters
        ----------
        waiting
            Called once if it has to wait.

        Raises
        ------
        Conflict
            Another supervisor has the lock and isn't stopping.
        """
        until = time.monotonic() + _STOPS_WITHIN
        told = False
        while True:
            try:
                self.lock()
            except Conflict:
                if not self.stopping or time.monotonic() > until:
                    raise
                if not told:
                    waiting()
                    told = True
                await asyncio.sleep(0.1)
            else:
                return

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def migrate(self) -> None:
        """Migrate an older data directory to this version's layout.

        Raises
        ------
        Unavailable
            The layout is that of a newer version of LLMOS.
        """
        version = int(read_json(self._platform).get("schema", SCHEMA))
        if version > SCHEMA:
            raise Unavailable(
                f"{self.data_dir.root} was written by a newer LLMOS (layout {version}, this one knows {SCHEMA}). "
                "Update LLMOS, or choose another: --data-dir DIR"
            )
        while version < SCHEMA:
            MIGRATIONS[version](self.data_dir)
            version += 1
        self.note(schema=SCHEMA)

    def note(self, **values: Any) -> None:
        """Keep values for later starts, which read them as the properties of the same names."""
        before = read_json(self._platform)
        if (content := {**before, **values}) != before:
            write_private(self._platform, json.dumps(content, indent=2) + "\n")

    @property
    def ports(self) -> dict[str, int]:
        """The internal ports of the last start."""
        ports = read_json(self._platform).get("ports")
        return {k: v for k, v in ports.items() if isinstance(v, int)} if isinstance(ports, dict) else {}

    @property
    def admin(self) -> str:
        """The first admin's name; empty before the first start."""
        return str(read_json(self._platform).get("admin", ""))

    @property
    def announced(self) -> bool:
        """True once the platform has been ready, so that its Hub has users."""
        return bool(read_json(self._platform).get("announced"))

    @property
    def place(self) -> dict[str, Any]:
        """Path, device and inode of the data directory at the last start; empty if it is new."""
        place = read_json(self._platform).get("place")
        return place if isinstance(place, dict) else {}

    @property
    def database(self) -> str:
        """The id of the embedded database at the last start; empty if there was none."""
        return str(read_json(self._platform).get("database", ""))

    @property
    def mark(self) -> str:
        """The platform's mark, carried by all processes that it starts."""
        return mark_of(self.data_dir)

    def records(self) -> dict[str, ProcessRecord]:
        """Return the recorded processes that still run, by name, without those of another platform."""
        mark = self.mark
        found = {}
        for path in sorted(self._records.glob("*.json")):
            try:
                record = ProcessRecord(**read_json(path))
            except TypeError:
                continue
            if record.mark == mark and record.handle.alive:
                found[path.stem] = record
        return found

    def write_record(self, name: str, record: ProcessRecord) -> None:
        """Write the record of a process."""
        write_private(self._records / f"{name}.json", json.dumps(asdict(record)))

    def drop_record(self, name: str) -> None:
        """Delete the record of a process."""
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """Return the status that a supervisor wrote last; empty if there is none."""
        return read_json(self._status)

    def write_status(self, content: Mapping[str, Any]) -> None:
        """Write the status, on a full disk in place of the old one."""
        text = json.dumps(content, indent=2) + "\n"
        try:
            write_private(self._status, text)
        except OSError:
            overwrite(self._status, text)

    @property
    def stopping(self) -> bool:
        """True if whoever has the lock is stopping, up to the moment at which it gives the lock back."""
        return bool(self.status().get("stopping"))

    def supervisor(self) -> ProcessHandle | None:
        """Return the running supervisor; None if there is none."""
        status = self.status()
        said = status.get("supervisor")
        if not isinstance(said, dict):
            return None
        handle = ProcessHandle(int(said.get("pid", 0)), int(said.get("start_time", 0)))
        if not handle.alive:
            return None
        return handle if status.get("instance") == self.mark or self._locked_by(handle.pid) else None

    def _locked_by(self, pid: int) -> bool:
        """Return whether this process has locked this directory; needed for older versions, which have another mark.

        The lock is on the file itself, so the lock file of a copy isn't locked, unless it is a hard link.
        """
        try:
            fd = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_nlink != 1 or os.pread(fd, 32, 0).strip() != str(pid).encode():
                return False
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
        return False


def _check_path(root: Path) -> None:
    """Refuse a path that can't be passed to other programs.

    Raises
    ------
    Unavailable
        The path contains a control character, a colon, or a placeholder of the commands that start models.
    """
    found = _UNUSABLE.search(str(root))
    if found:
        raise Unavailable(
            f"A data directory can't have {found[0]!r} in its path: {str(root)!r}. Choose another: --data-dir DIR"
        )
