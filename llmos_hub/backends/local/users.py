"""The operating system's users that replicas run as."""

from __future__ import annotations

from typing import Final

from llmos.errors import BackendFailed
from llmos_hub.processes.users import User, find_user

__all__ = ["PASSABLE", "user_for"]

PASSABLE: Final = 0o711
"""Mode of directories through which users reach those of their own, without listing those of others."""


def user_for(name: str, workload: str) -> User | None:
    """Return the user of a process of a workload; None if it is that of this process.

    Raises
    ------
    BackendFailed
        It can't run as that user.
    """
    try:
        return find_user(name)
    except OSError as error:
        shown = name if name.isdigit() else f'"{name}"'
        raise BackendFailed(f"{workload} can't run as {shown}: {error.strerror}.") from None
