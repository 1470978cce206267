"""Lost or damaged parts of the data directory: refusals with advice, and replacement by ``--recover``."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmos.errors import Unavailable
from llmos_hub.names import DataDir
from llmos_hub.supervisor.database_files import RECOVER, repair, set_aside
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.state import StateFiles

__all__ = ["check_people", "check_secrets", "open_hub_database", "recover"]

_LOCKED: Final = 10.0  # seconds to wait while a Hub writes


def open_hub_database(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Open the Hub's existing database."""
    # not read-only: SQLite rolls back a transaction interrupted by a power failure when the file is opened
    return contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCKED))


def check_secrets(data_dir: DataDir, files: StateFiles) -> None:
    """Refuse to create new secrets for existing data, which is encrypted with the old ones.

    Raises
    ------
    Unavailable
        The secrets are lost.
    """
    if data_dir.secrets.exists() or not (files.admin or data_dir.hub_database.exists()):
        return
    raise Unavailable(
        f"{data_dir.secrets} is lost; it has the key with which Credentials are encrypted. Restore it from a backup, or "
        f"continue with new secrets (Credentials must then be deleted and created again): {RECOVER} secrets"
    )


def check_people(data_dir: DataDir, files: StateFiles) -> None:
    """Refuse to start a Hub that has lost its users, as nobody could log in.

    Raises
    ------
    Unavailable
        The Hub's database is missing, empty or damaged.
    """
    if not files.announced:
        return
    trouble = _people_trouble(data_dir.hub_database)
    if trouble:
        raise Unavailable(
            f"The Hub's database {data_dir.hub_database} {trouble}: nobody could log in. Restore it from a backup, or "
            "start with a new one (users and tokens must be created again, homes and models stay, the old file is kept "
            f"beside it): {RECOVER} people"
        )


def _people_trouble(path: Path) -> str:
    if not path.exists():
        return "is lost"
    try:
        with open_hub_database(path) as database:
            count = database.execute("SELECT count(*) FROM users").fetchone()[0]
    except sqlite3.OperationalError as exc:
        # locked, or no space for a journal: the Hub is using it, or will report the error itself
        return "is empty" if "no such table" in str(exc) else ""
    except sqlite3.DatabaseError as exc:
        return f"is damaged ({exc})"
    return "" if count else "has nobody in it"


def recover(part: str, data_dir: DataDir, files: StateFiles, say: Callable[[str], None]) -> None:
    """Repair or replace the part of the data directory that ``--recover`` names.

    Parameters
    ----------
    part
        One of `llmos_hub.names.RECOVERABLE`; empty for nothing.
    data_dir, files
        The data directory and its state files.
    say
        Prints a line about what was done.

    Raises
    ------
    Unavailable
        The part can't be repaired.
    """
    if part == "secrets":
        kept = set_aside(data_dir.secrets)
        Secrets.load(data_dir.secrets)
        say(
            "New secrets are created; existing Credentials can't be decrypted: delete and create them again."
            f"{_before(kept)}"
        )
    elif part == "database":
        say(repair(data_dir.valkey))
    elif part == "empty-database":
        kept = set_aside(data_dir.valkey)
        files.note(database="")
        say(f"The database is empty: models, settings and Credentials must be created again.{_before(kept)}")
    elif part == "people":
        kept = set_aside(data_dir.hub_database)
        data_dir.admin_password.unlink(missing_ok=True)
        files.note(announced=False)
        say(f"The Hub's database is new: users and tokens must be created again.{_before(kept)}")


def _before(kept: Path | None) -> str:
    return f" Before: {kept}" if kept else ""
