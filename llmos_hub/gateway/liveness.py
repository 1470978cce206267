"""Detection of connections whose other machine is gone.

When a process dies, its connections are closed. When a machine dies or the network is partitioned, nothing is closed:
data is retransmitted for a quarter of an hour, and whoever waits for an answer waits for ever. Two signs tell this from
an engine that computes for long, since the kernel of a running machine acknowledges data whatever its processes do:

- while nothing is under way, TCP's keepalive probes, which the kernel sends and counts;
- while something is, the time since the last acknowledgement (`unacknowledged`). ``TCP_USER_TIMEOUT`` would not do: it
  also ends a connection whose other side does not read a large body yet, as engines without a free slot do.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

__all__ = ["is_lost", "probe", "unacknowledged"]

_LOST: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH})
_PROBES: Final = 3
_TCP_INFO: Final = struct.Struct("=24xI28xI")
"""Linux' ``struct tcp_info`` (<linux/tcp.h>) up to ``tcpi_last_ack_recv``: ``tcpi_unacked`` in segments, the other in
milliseconds."""


def probe(sock: socket.socket, seconds: float) -> None:
    """Have the kernel close an idle connection when no keepalive probe was answered for about `seconds`."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_KEEPIDLE"):
        return
    every = max(1, round(seconds / (_PROBES + 1)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def unacknowledged(sock: socket.socket) -> float:
    """Return the seconds since the last acknowledgement if sent data is unacknowledged; otherwise, or if unknown, 0."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(info) < _TCP_INFO.size:
        return 0.0
    segments, milliseconds = _TCP_INFO.unpack(info)
    return milliseconds / 1000 if segments else 0.0


def is_lost(error: BaseException | None) -> bool:
    """Return whether a connection ended because the other machine did not answer."""
    return isinstance(error, OSError) and error.errno in _LOST
