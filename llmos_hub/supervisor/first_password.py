"""The first admin's password: created at the first start, passed to the Hub in a file, and printed until it is used."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmos.errors import Invalid, Unavailable
from llmos.files import write_private
from llmos_hub.accounts.password_rules import check_strength, make_password
from llmos_hub.names import DataDir
from llmos_hub.supervisor.console import llmos_command
from llmos_hub.supervisor.recovery import open_hub_database

__all__ = ["FirstPassword", "prepare_first_password"]

_GIVEN: Final = "LLMOS_ADMIN_PASSWORD"


@dataclass(frozen=True)
class FirstPassword:
    """The messages about the first admin's password.

    Attributes
    ----------
    login
        Text for the line with the log-in page, after "log in as NAME".
    notes
        Further lines.
    """

    login: str
    notes: tuple[str, ...] = ()


def prepare_first_password(data_dir: DataDir, admin: str) -> FirstPassword:
    """Write a first password for the Hub if no user in its database has one, as at the first start.

    Raises
    ------
    Invalid
        The password in the environment is too weak.
    Unavailable
        The Hub's database can't be read.
    """
    given = os.environ.get(_GIVEN, "")
    notes = []
    if not _anybody_has_a_password(data_dir.hub_database):
        if given and (trouble := check_strength(given, admin)):
            raise Invalid(f"{_GIVEN}: {trouble}")
        if not given:
            write_private(data_dir.admin_password, make_password() + "\n")
        password = given or data_dir.admin_password.read_text(encoding="utf-8").strip()
        write_private(data_dir.hub / "first-password", json.dumps({"password": password, "one_time": not given}))
        if left := _homes_left(data_dir):
            notes.append(
                f"The Hub's database is new: {admin} is made again, others are not. Homes and models are "
                f"still there ({left}). Make people again with: {llmos_command()} user add NAME --inherit"
            )
        if given:
            return FirstPassword(f", password as in {_GIVEN}", tuple(notes))
    elif given:
        notes.append(
            f"{_GIVEN} is not used: it is for the first start. Another password: {llmos_command()} user password {admin}"
        )
    with contextlib.suppress(FileNotFoundError):
        unused = data_dir.admin_password.read_text(encoding="utf-8").strip()
        return FirstPassword(f", one-time password  {unused}", tuple(notes))
    return FirstPassword(f"   (forgot the password? {llmos_command()} user password {admin})", tuple(notes))


def _anybody_has_a_password(database: Path) -> bool:
    if not database.exists() or not database.stat().st_size:
        return False
    try:
        with open_hub_database(database) as found:
            tables = {name for (name,) in found.execute("select name from sqlite_master where type = 'table'")}
            if "llmos_passwords" not in tables:
                return False
            return found.execute("select 1 from llmos_passwords limit 1").fetchone() is not None
    except sqlite3.Error as error:
        raise Unavailable(f"The Hub's database {database} can't be read: {error}.") from error


def _homes_left(data_dir: DataDir) -> str:
    try:
        names = sorted(path.name for path in data_dir.homes.iterdir() if path.is_dir())
    except FileNotFoundError:
        return ""
    return ", ".join([*names[:5], *([f"and {len(names) - 5} more"] if len(names) > 5 else [])])
