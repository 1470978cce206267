"""The gateway's limits: sizes, times and counts, each with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from llmos.errors import UsageError
from llmos_hub.settings import seconds

__all__ = ["GatewayOptions"]

MIB = 1024 * 1024
ENV_DRAIN: Final = "LLMOS_GATEWAY_DRAIN_SECONDS"
ENV_SHUTDOWN_DELAY: Final = "LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS"
ENV_ORIGINS: Final = "LLMOS_GATEWAY_ALLOWED_ORIGINS"
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,?#@]+")
_LONGEST_DRAIN: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The gateway's limits. Times are in seconds, sizes in bytes.

    Attributes
    ----------
    allowed_origins
        Origins whose pages in a browser may read answers, such as ``https://app.example.org``, or ``*`` for all. Set by
        ``LLMOS_GATEWAY_ALLOWED_ORIGINS``, separated by commas; by default none. A page still needs a token.
    max_body
        The maximum size of a request body: 32 MiB hold a long chat with several images, or a batch of about
        ten thousand texts to embed.
    max_buffered
        The maximum size of all request bodies in memory. A body is kept until its answer begins, since it may have to
        be sent again to another replica; many large ones at once must not fill the memory. A single caller may take
        half of it (`llmos_hub.gateway.shares`), and likewise of `max_requests`.
    max_requests
        The maximum number of model requests under way in this process, counted once their body was received. More are
        refused with 503 rather than queued, so that clients are told and an overloaded process still answers.
    max_connections
        The maximum number of client connections. When a new one exceeds it, the connection that has been idle longest
        is closed. Half of them may be sending a request body.
    max_head
        The maximum size of the request line and headers, from a client, or of the status line and headers from an
        engine.
    head_timeout
        The time for a client's request line and headers to arrive.
    keep_alive
        The time for which a client's idle connection is kept. Longer than the 60 s after which common proxies close
        theirs, so that they never send on a connection that is just being closed.
    body_gap_timeout
        The maximum time between two pieces of a request body.
    body_timeout
        The time for the whole request body to arrive: 32 MiB take minutes on a slow line.
    connect_timeout
        The time to connect to a replica, which is on the same machine or in the same cluster.
    ready_wait
        The maximum time for which a request waits for a model that is about to be ready. This process may hear of a
        replica a moment after the client, which sends its first request then.
    first_byte_timeout
        The maximum time from the request's last byte to the answer's first: a long prompt on a CPU takes minutes.
    idle_timeout
        The maximum time between two pieces of an answer. An engine that computes sends something more often.
    pool_idle
        The time for which an unused connection to a replica is kept. Below the 5 s after which llama.cpp closes it.
    pool_size
        The maximum number of unused connections kept per replica. More than the requests that a replica gets at once
        are of no use.
    lost_after
        The time after which a replica's machine counts as lost when it acknowledges nothing that was sent to it. The
        kernel acknowledges, not the engine, so a busy engine is never affected. The request goes to another replica.
    check_after
        The time for which an engine may be silent before its health is checked, if it answers checks while it
        computes.
    check_timeout
        The timeout of each of two such checks. If both fail, the engine hangs: the request goes to another replica,
        or its client gets an error. With `check_after`, this is less than the half minute after which people assume
        that the service is broken.
    aside
        The time for which a replica that could not be reached is passed over while there are others; doubled each
        time, up to eightfold.
    shutdown_delay
        The time after a SIGTERM in which requests are still accepted, from clients and proxies that don't know yet
        that this gateway is stopping: ``LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS``. Each answer closes its connection, so
        that clients with persistent connections move to another gateway between two requests. 0 where there is no
        other gateway.
    drain
        The time for which running requests may continue after that: ``LLMOS_GATEWAY_DRAIN_SECONDS``. The sender of
        the signal has to wait longer than both before it kills the process.
    """

    allowed_origins: frozenset[str] = frozenset()
    max_body: int = 32 * MIB
    max_buffered: int = 512 * MIB
    max_requests: int = 1024
    max_connections: int = 8192
    max_head: int = 64 * 1024
    head_timeout: float = 30.0
    keep_alive: float = 75.0
    body_gap_timeout: float = 60.0
    body_timeout: float = 600.0
    connect_timeout: float = 2.0
    ready_wait: float = 2.0
    first_byte_timeout: float = 600.0
    idle_timeout: float = 300.0
    pool_idle: float = 4.0
    pool_size: int = 64
    lost_after: float = 5.0
    check_after: float = 5.0
    check_timeout: float = 8.0
    aside: float = 2.0
    shutdown_delay: float = 0.0
    drain: float = 30.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the limits as set in the environment.

        Raises
        ------
        UsageError
            A variable has an invalid value; the message names the variable.
        """
        default = cls()
        return replace(
            default,
            allowed_origins=_origins(environ),
            drain=seconds(environ, ENV_DRAIN, default.drain, 0, _LONGEST_DRAIN),
            shutdown_delay=seconds(environ, ENV_SHUTDOWN_DELAY, default.shutdown_delay, 0, _LONGEST_DRAIN),
        )


def _origins(environ: Mapping[str, str]) -> frozenset[str]:
    origins = frozenset(text.strip().lower() for text in environ.get(ENV_ORIGINS, "").split(",") if text.strip())
    for origin in sorted(origins):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f'{ENV_ORIGINS}: "{origin[:80]}" is not an origin: https://app.example.org, without a path; with commas between.'
            )
    return origins
