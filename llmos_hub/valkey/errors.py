"""Translation of the database's failures into the platform's errors."""

from __future__ import annotations

from typing import Final

from redis import exceptions

from llmos.errors import Internal, Unavailable

__all__ = ["refused", "refuses_log_in", "unavailable"]

_LOG_IN: Final = (exceptions.AuthenticationError, exceptions.AuthorizationError)
_STATES: Final = ("MISCONF", "OOM", "READONLY", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "NOPERM", "NOAUTH")


def unavailable(name: str, why: str) -> Unavailable:
    """Return the error for the database `name`, its URL without the password."""
    return Unavailable(f"The database at {name} {why.rstrip('.')}.")


def refuses_log_in(error: Exception) -> bool:
    """Return whether the server, or the client library on connecting, says that the password is wrong."""
    return isinstance(error, _LOG_IN) or isinstance(error.__cause__, _LOG_IN)


def refused(name: str, error: exceptions.ResponseError) -> Unavailable | Internal:
    """Return the error for a refusal: a state of the server (full disk, read-only), or a bug of this program."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return unavailable(
            name,
            "is full: it holds as much as it may (maxmemory). What is there can be read and deleted; delete what is "
            "not needed, or let an admin give it more memory",
        )
    if "NOREPLICAS" in text or text.startswith("Not enough good replicas"):
        # `llmos_hub.supervisor.disk` stops writes this way; on an external server it can be intended
        why = "its disk is nearly full" if name.startswith("unix:") else "it has fewer replicas than it needs"
        return unavailable(name, f"saves nothing at the moment: {why}. It continues by itself once that is fixed")
    if isinstance(error, (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)) or text.startswith(_STATES):
        return unavailable(name, f"refuses: {text}")
    return Internal(f"The database at {name} did not understand: {text}")
