"""Ports on which a process could listen."""

from __future__ import annotations

import socket

__all__ = ["listen_error"]


def listen_error(host: str, port: int) -> OSError | None:
    """Return the error that a server would get if it listened there at the moment; None if it could listen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # set by servers as well: a port with connections in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
