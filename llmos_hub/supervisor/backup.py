"""Backups of the Hub's database and of Valkey's files, taken while both are in use.

``python -m llmos_hub.supervisor.backup hub|valkey SOURCE DIRECTORY KEEP`` is the command of the chart's backup jobs.
Restoring a backup needs no program of LLMOS: it is a SQLite file, or a tar of Valkey's append-only files.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sqlite3
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llmos.errors import LLMOSError, Unavailable, UsageError

__all__ = ["backup_sqlite", "backup_valkey", "main", "prune"]

_TIMEOUT: Final = 30.0  # seconds for one answer of a database
_REWRITE: Final = 600.0  # seconds that a rewrite of the append-only files may still take
_APPEND_ONLY: Final = "appendonlydir"
_PERCENTAGE: Final = "auto-aof-rewrite-percentage"


def backup_sqlite(source: Path, target: Path) -> None:
    """Copy a database with SQLite's backup API, which gives a consistent copy despite concurrent writes.

    Raises
    ------
    Unavailable
        The database can't be read.
    """
    plain = target.with_suffix(".tmp")
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT)
            ) as database,
            contextlib.closing(sqlite3.connect(plain)) as copy,
        ):
            database.backup(copy)
        with plain.open("rb") as content, gzip.open(target, "wb") as packed:
            shutil.copyfileobj(content, packed)
    except sqlite3.Error as error:
        raise Unavailable(f"The Hub's database {source} can't be read: {error}.") from error
    finally:
        plain.unlink(missing_ok=True)


def backup_valkey(source: Path, target: Path, client: Any) -> None:
    """Copy Valkey's append-only files while no rewrite replaces them.

    As described in https://valkey.io/topics/persistence/: disable rewrites, wait for a running one, copy the files.
    The copy may end in the middle of a command, which ``aof-load-truncated`` drops at the next start.

    Parameters
    ----------
    source
        Valkey's ``dir``.
    target
        The tar to write.
    client
        A `redis.Redis` of that server.
    """
    with _rewrites_off(client):
        deadline = time.monotonic() + _REWRITE
        while client.info("persistence")["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline:
                raise Unavailable(f"Valkey is rewriting its files for more than {_REWRITE:.0f} s.")
            time.sleep(0.5)
        with tarfile.open(target, "w:gz") as tar:
            tar.add(source / _APPEND_ONLY, arcname=_APPEND_ONLY)


@contextlib.contextmanager
def _rewrites_off(client: Any) -> Iterator[None]:
    before = client.config_get(_PERCENTAGE)[_PERCENTAGE]
    client.config_set(_PERCENTAGE, 0)
    try:
        yield
    finally:
        # 0 was left by a backup that was killed
        client.config_set(_PERCENTAGE, before if int(before) else 100)


def prune(directory: Path, prefix: str, keep: int) -> list[Path]:
    """Delete all but the newest `keep` backups; return those that were deleted."""
    found = sorted(directory.glob(f"{prefix}-*.gz"), reverse=True)
    for path in found[keep:]:
        path.unlink()
    return found[keep:]


def _take(kind: str, directory: Path, suffix: str, copy: Callable[[Path], None]) -> Path:
    """Write a backup under a temporary name and rename it, so that a backup is always complete."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    final = directory / f"{kind}-{stamp}.{suffix}.gz"
    partial = directory / f".{final.name}"
    try:
        copy(partial)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def main(argv: Sequence[str] | None = None) -> int:
    """Take a backup and delete the oldest ones; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o077)
    try:
        if len(arguments) != 4 or arguments[0] not in ("hub", "valkey") or not arguments[3].isdigit():
            raise UsageError("Usage: hub|valkey SOURCE DIRECTORY KEEP")
        kind, source, directory, keep = arguments[0], Path(arguments[1]), Path(arguments[2]), int(arguments[3])
        if kind == "hub":
            made = _take(kind, directory, "sqlite", lambda path: backup_sqlite(source, path))
        else:
            made = _take(kind, directory, "tar", lambda path: _from_server(source, path))
        removed = prune(directory, kind, max(1, keep))
    except LLMOSError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        sys.stderr.write(f"The backup can't be written: {error}\n")
        return 1
    sys.stdout.write(f"{made} ({made.stat().st_size / 1e6:.1f} MB); {len(removed)} older deleted\n")
    return 0


def _from_server(source: Path, target: Path) -> None:
    import redis

    client = redis.Redis.from_url(
        os.environ["LLMOS_REDIS_URL"], decode_responses=True, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
    )
    try:
        backup_valkey(source, target, client)
    except redis.RedisError as error:
        raise Unavailable(f"Valkey does not answer: {error}.") from error
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main())
