"""What a supervisor leaves for the next one: ports, process records, how it stands.

``platform.json`` lasts (schema version, internal ports); what lies in ``run`` speaks of processes and is
worth nothing without them. All writes replace the file whole.
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
from llmos_hub.names import DataDir
from llmos_hub.processes import ProcessHandle
from llmos_hub.supervisor.console import llmos_command
from llmos_hub.supervisor.identity import mark_of
from llmos_hub.supervisor.secrets import write_private

__all__ = ["SCHEMA", "Record", "StateFiles"]

SCHEMA: Final = 1
"""The layout of the data directory that this version writes."""

MIGRATIONS: Final[Mapping[int, Callable[[DataDir], None]]] = {}
"""What turns the layout of version N into that of N + 1, by N."""

_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f:]|\{(?:socket|port|index|dir)\}")
"""Characters that end a line in logs and lists, the colon, which parts the entries of ``PATH`` (people's own packages lie
in their homes), and the names that `llmos_hub.backends.local` fills in."""


@dataclass(frozen=True)
class Record:
    """A process that a supervisor started.

    Attributes
    ----------
    pid, start_time
        The process (`llmos_hub.processes.ProcessHandle`).
    fingerprint
        A hash of what it was started with; one started otherwise is not adopted.
    since
        When, in seconds since the epoch.
    mark
        The platform that started it (`llmos_hub.supervisor.identity`): in a copy of the data directory its record is
        worth nothing.
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


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class StateFiles:
    """The files, by what they say.

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
        """Make the directories; True where the data directory is new.

        Raises
        ------
        Unavailable
            It can't be written, belongs to someone else, or has a name that can't be used.
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
        """Take the data directory for this process until it ends, however it ends.

        Raises
        ------
        Conflict
            Another supervisor has it.
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

    async def lock_after_stop(self, waiting: Callable[[], None], timeout: float = 120.0) -> None:
        """Take it, and wait for one that is just being stopped.

        Parameters
        ----------
        waiting
            Called once, where it has to wait.
        timeout
            Seconds to wait at most.

        Raises
        ------
        Conflict
            Another supervisor has it and isn't stopping.
        """
        until = time.monotonic() + timeout
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
        """Let go of it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def migrate(self) -> None:
        """Bring an older data directory to this version's layout.

        Raises
        ------
        Unavailable
            A newer version of LLMOS has written it.
        """
        platform = _read(self._platform)
        version = int(platform.get("schema", SCHEMA))
        if version > SCHEMA:
            raise Unavailable(
                f"{self.data_dir.root} was written by a newer LLMOS (layout {version}, this one knows {SCHEMA}). "
                "Update LLMOS, or choose another: --data-dir DIR"
            )
        while version < SCHEMA:
            MIGRATIONS[version](self.data_dir)
            version += 1
        self._write_platform({**platform, "schema": SCHEMA})

    def _write_platform(self, content: Mapping[str, Any]) -> None:
        if content != _read(self._platform):
            write_private(self._platform, json.dumps(content, indent=2) + "\n")

    @property
    def ports(self) -> dict[str, int]:
        """The internal ports of last time."""
        ports = _read(self._platform).get("ports")
        return {k: v for k, v in ports.items() if isinstance(v, int)} if isinstance(ports, dict) else {}

    @ports.setter
    def ports(self, ports: Mapping[str, int]) -> None:
        self._write_platform({**_read(self._platform), "ports": dict(ports)})

    @property
    def admin(self) -> str:
        """The first admin's name, once there is one."""
        return str(_read(self._platform).get("admin", ""))

    @admin.setter
    def admin(self, name: str) -> None:
        self._write_platform({**_read(self._platform), "admin": name})

    @property
    def announced(self) -> bool:
        """Whether a platform has been ready here, so that its Hub knows people."""
        return bool(_read(self._platform).get("announced"))

    @announced.setter
    def announced(self, done: bool) -> None:
        self._write_platform({**_read(self._platform), "announced": done})

    @property
    def place(self) -> dict[str, Any]:
        """Where the data directory was the last time; empty where it is new."""
        place = _read(self._platform).get("place")
        return place if isinstance(place, dict) else {}

    @place.setter
    def place(self, place: Mapping[str, Any]) -> None:
        self._write_platform({**_read(self._platform), "place": dict(place)})

    @property
    def database(self) -> str:
        """The id of the embedded database that was there the last time; empty where there was none."""
        return str(_read(self._platform).get("database", ""))

    @database.setter
    def database(self, name: str) -> None:
        self._write_platform({**_read(self._platform), "database": name})

    @property
    def known(self) -> bool:
        """Whether a platform has run here before."""
        return bool(_read(self._platform).get("admin"))

    @property
    def mark(self) -> str:
        """What everything that this platform starts carries."""
        return mark_of(self.data_dir)

    def records(self) -> dict[str, Record]:
        """The recorded processes that still run, by name; those of a directory that this is a copy of are not ours."""
        mark = self.mark
        found = {}
        for path in sorted(self._records.glob("*.json")):
            try:
                record = Record(**_read(path))
            except TypeError:
                continue
            if record.mark == mark and record.handle.alive:
                found[path.stem] = record
        return found

    def write_record(self, name: str, record: Record) -> None:
        """Remember a process."""
        write_private(self._records / f"{name}.json", json.dumps(asdict(record)))

    def drop_record(self, name: str) -> None:
        """Forget it."""
        with contextlib.suppress(FileNotFoundError):
            (self._records / f"{name}.json").unlink()

    def status(self) -> dict[str, Any]:
        """What the supervisor wrote last; empty where none did."""
        return _read(self._status)

    def write_status(self, content: Mapping[str, Any]) -> None:
        """Say how it stands."""
        write_private(self._status, json.dumps(content, indent=2) + "\n")

    @property
    def stopping(self) -> bool:
        """Whether the supervisor that runs is on its way out."""
        return self.supervisor() is not None and bool(self.status().get("stopping"))

    def supervisor(self) -> ProcessHandle | None:
        """The supervisor, where one runs."""
        status = self.status()
        said = status.get("supervisor")
        if not isinstance(said, dict):
            return None
        handle = ProcessHandle(int(said.get("pid", 0)), int(said.get("start_time", 0)))
        if not handle.alive:
            return None
        return handle if status.get("instance") == self.mark or self._locked_by(handle.pid) else None

    def _locked_by(self, pid: int) -> bool:
        """Whether this process has taken this very directory: one of an older version, which has another mark.

        A lock belongs to the file itself, so that nobody has a copy's, unless the copy is of links.
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
    """Refuse a path that can't be handed on.

    Raises
    ------
    Unavailable
        It holds a line end, a colon, or what is filled in where models are started.
    """
    found = _UNUSABLE.search(str(root))
    if found:
        raise Unavailable(
            f"A data directory can't have {found[0]!r} in its path: {str(root)!r}. Choose another: --data-dir DIR"
        )
