"""The operating system's users that processes run as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from llmos.errors import BackendFailed

__all__ = ["User", "find_user"]


@dataclass(frozen=True, slots=True)
class User:
    """A user with its groups; `home` is empty for a number that has no account."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def own(self, path: Path, *, mode: int, group: int | None = None) -> None:
        """Give a directory to the user, and to `group` instead of the user's own."""
        os.chown(path, self.uid, self.gid if group is None else group)
        path.chmod(mode)


def find_user(name: str, workload: str) -> User | None:
    """Return the user for a process; None if it needn't be changed.

    Parameters
    ----------
    name
        Name or number; empty: the user of this process.
    workload
        The name of what the process is for, for messages.

    Raises
    ------
    BackendFailed
        There is no such user, or this process isn't root and may not start processes of others.
    """
    if not name:
        return None
    shown = name if name.isdigit() else f'"{name}"'
    refused = f"{workload} can't run as {shown}"
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if not name.isdigit():
            raise BackendFailed(f"{refused}: there is no such user on this machine.") from None
        user = User(int(name), int(name), (), "")
    else:
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        user = User(entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)
    if user.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise BackendFailed(f"{refused}: only root may start processes of others, and LLMOS isn't root.")
    return user
