"""Whether the machine at the other end of a connection is still there.

A process that dies closes its connections; a machine that dies, or a network that parts, says nothing: what was
sent is sent again for a quarter of an hour, and who waits for an answer waits for ever. Two things tell it from an engine
that computes for long, since a living machine's kernel acknowledges whatever its processes do:

- while nothing is under way, TCP's keepalive probes, which the kernel sends and counts;
- while something is, the time since the last acknowledgement (`unacknowledged`). Not ``TCP_USER_TIMEOUT``: that also ends a
  connection whose other side lets it wait with a part of a large body, as engines do that have no place free.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, Protocol

__all__ = ["Socket", "is_lost", "probe", "unacknowledged"]

_LOST: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH})
_PROBES: Final = 3
_TCP_INFO: Final = struct.Struct("=24xI28xI")
"""Linux' ``struct tcp_info`` (<linux/tcp.h>) up to ``tcpi_last_ack_recv``: ``tcpi_unacked`` in segments, the other in
milliseconds."""


class Socket(Protocol):
    """What is needed of one; event loops hand out stand-ins."""

    @property
    def family(self) -> int:
        """The address family."""
        ...

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """As `socket.socket.setsockopt`."""
        ...

    def getsockopt(self, level: int, name: int, length: int, /) -> bytes:
        """As `socket.socket.getsockopt`."""
        ...


def probe(sock: Socket, seconds: float) -> None:
    """Have the kernel end a connection on which nothing is under way and no probe was answered for about `seconds`."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_KEEPIDLE"):
        return
    every = max(1, round(seconds / (_PROBES + 1)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def unacknowledged(sock: Socket) -> float:
    """For how many seconds nothing was acknowledged of what was sent; 0 where all was, or where nobody can tell."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(info) < _TCP_INFO.size:
        return 0.0
    segments, milliseconds = _TCP_INFO.unpack(info)
    return milliseconds / 1000 if segments else 0.0


def is_lost(error: BaseException | None) -> bool:
    """Whether a connection ended because nobody answered on the other side."""
    return isinstance(error, OSError) and error.errno in _LOST
