"""The model cache, a content-addressed directory that all its readers share.

```
DIR/blobs/SHA256             a complete and verified file; moved there by one rename
DIR/partial/SHA256.part      a file that is being fetched
DIR/models/KEY/NAME.gguf     file names for engines, as links to blobs; KEY is derived from the blobs' hashes
DIR/refs/KEY.json            the result of the last fetch of a URI
DIR/locks/KEY.lock           locked (flock) by the process that fetches a URI; beside it the progress
```

Every file under ``blobs`` is complete. Everything else may be lost, and is then created again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llmos.errors import SourceFailed
from llmos.files import replace_file
from llmos_hub.sources.base import FetchProgress, ModelFiles, Reporter

__all__ = ["Cache", "explain_os_error", "hash_of"]

_POLL: Final = 0.2  # seconds between two looks at another fetch
_SPARE: Final = 64 * 2**20  # bytes to leave free on the disk


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def explain_os_error(error: OSError, directory: Path) -> SourceFailed:
    """Return an error for people that explains an error of the file system."""
    where = error.filename if isinstance(error.filename, str) else str(directory)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = ""
        with contextlib.suppress(OSError):
            free = f" ({_gigabytes(shutil.disk_usage(directory).free)} free)"
        return SourceFailed(f"The disk under {directory} is full{free}. Free some space and try again.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceFailed(f"No permission for {where}. It has to be readable and writable for uid {os.geteuid()}.")
    if error.errno == errno.EROFS:
        return SourceFailed(f"{where} is on a read-only file system. Choose another data directory.")
    return SourceFailed(f"{where}: {error.strerror or error}. Is the disk in order?")


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of models.

    Attributes
    ----------
    directory
        The directory; created when first written to.
    """

    directory: Path

    def _in(self, folder: str) -> Path:
        path = self.directory / folder
        path.mkdir(parents=True, exist_ok=True)
        return path

    def blob(self, sha256: str) -> Path:
        """Return the path of the file with that hash, which need not exist."""
        return self._in("blobs") / sha256

    def partial(self, sha256: str) -> Path:
        """Return the path of the file with that hash while it is fetched."""
        return self._in("partial") / f"{sha256}.part"

    def recorded(self, uri: str) -> ModelFiles | None:
        """Return the result of the last fetch of the URI; None if unknown, or if a file is missing."""
        try:
            data = json.loads((self.directory / "refs" / f"{_key(uri)}.json").read_text(encoding="utf-8"))
            model = ModelFiles.load(data)
            beside = list(Path(model.path).parent.iterdir())  # further parts
            present = model.uri == uri and Path(model.path) in beside and all(path.is_file() for path in beside)
        except (OSError, ValueError, TypeError):
            return None
        return model if present else None

    def record(self, model: ModelFiles) -> ModelFiles:
        """Record the result of a fetch."""
        replace_file(self._in("refs") / f"{_key(model.uri)}.json", json.dumps(model.dump()))
        return model

    def publish(self, partial: Path, sha256: str) -> Path:
        """Move a verified file to the blobs, so that it survives a power failure."""
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        target = self.blob(sha256)
        partial.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target

    def name(self, parts: Sequence[tuple[str, str]]) -> list[Path]:
        """Return paths in one directory under which an engine finds blobs, given as (file name, hash)."""
        folder = self._in("models") / _key("\n".join(f"{sha256} {name}" for name, sha256 in parts))
        folder.mkdir(exist_ok=True)
        paths = []
        for name, sha256 in parts:
            path = folder / name
            with contextlib.suppress(FileExistsError):
                path.symlink_to(Path("..") / ".." / "blobs" / sha256)
            paths.append(path)
        return paths

    def check_space(self, needed: int, what: str) -> None:
        """Refuse a download that would not fit on the disk.

        Raises
        ------
        SourceFailed
            There is not enough space; the message says how much is needed and free.
        """
        free = shutil.disk_usage(self._in("partial")).free
        if free < needed + _SPARE:
            raise SourceFailed(
                f"{what} needs {_gigabytes(needed)} more on the disk, {self.directory} has {_gigabytes(free)} free. "
                "Free some space or take a smaller model."
            )

    @contextlib.contextmanager
    def exclusively(self, what: str, report: Reporter, *, title: str = "") -> Iterator[Reporter]:
        """Hold the lock for fetching `what` (a URI, a hash); while another process has it, report that one's progress.

        Yields the function to report progress with, which also shows it to those that wait.
        """
        path = self._in("locks") / f"{_key(what)}.lock"
        shown = path.with_suffix(".progress")
        with path.open("ab") as lock:
            self._wait(lock.fileno(), shown, title or what, report)
            shown.unlink(missing_ok=True)  # left by a process that was killed

            def tell(progress: FetchProgress) -> None:
                report(progress)
                with contextlib.suppress(OSError):
                    replace_file(shown, json.dumps(asdict(progress)))

            try:
                yield tell
            finally:
                shown.unlink(missing_ok=True)

    @staticmethod
    def _wait(lock: int, shown: Path, title: str, report: Reporter) -> None:
        seen: dict[str, Any] = {}
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    waiting = True
                    report(FetchProgress("", 0, message=f"Another fetch of {title} is under way; waiting for it."))
            else:
                return
            with contextlib.suppress(OSError, ValueError, TypeError):
                now = json.loads(shown.read_text(encoding="utf-8"))
                if now != seen:
                    seen = now
                    report(FetchProgress(**now))
            time.sleep(_POLL)
