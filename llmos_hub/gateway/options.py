"""What the gateway is bounded by: sizes, times and counts, each with its reason."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from llmos.errors import UsageError

__all__ = ["GatewayOptions"]

MIB = 1024 * 1024
ENV_DRAIN: Final = "LLMOS_GATEWAY_DRAIN_SECONDS"
ENV_SHUTDOWN_DELAY: Final = "LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS"
ENV_ORIGINS: Final = "LLMOS_GATEWAY_ALLOWED_ORIGINS"
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,?#@]+")
_LONGEST_DRAIN: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The gateway's bounds. Times are in seconds, sizes in bytes.

    Attributes
    ----------
    allowed_origins
        Whose pages in a browser may read answers, such as ``https://app.example.org``, or ``*``: none unless told, by
        ``LLMOS_GATEWAY_ALLOWED_ORIGINS`` with commas between. A page needs a token of its own all the same.
    max_body
        The largest request body: 32 MiB hold a long chat with several images, or a batch of some ten
        thousand texts to embed.
    max_buffered
        All request bodies in memory at once. A body is kept until its answer begins, since it may have to be
        sent again to another replica; many large ones at once must not fill the memory. One caller alone gets half of it
        (`llmos_hub.gateway.shares`), as of `max_requests`.
    max_requests
        Model requests under way at once in this process, from when their body is there; more are refused with 503 rather
        than queued, so that a client learns it and an overloaded process still answers.
    max_connections
        Client connections at once. For a new one beyond that, the one that has been without a request for longest is
        closed. Half of them may be sending a request's body.
    max_head
        Request line and headers, from a client or from an engine.
    head_timeout
        For a client's request line and headers to arrive.
    keep_alive
        How long a client's idle connection is kept. Longer than the 60 s after which common proxies drop
        theirs, so that they never send on a connection that is just being closed.
    body_gap_timeout
        Between two pieces of a request body.
    body_timeout
        For the whole request body; a slow line needs minutes for 32 MiB, nobody an hour.
    connect_timeout
        For a connection to a replica on the same machine or cluster.
    first_byte_timeout
        From the request's last byte to the answer's first: a long prompt on a CPU takes minutes.
    idle_timeout
        Between two pieces of an answer: an engine that computes sends something more often than that.
    pool_idle
        How long an unused connection to a replica is kept. Below the 5 s after which llama.cpp closes its own.
    pool_size
        Unused connections kept per replica; more than requests come at once to a replica are of no use.
    lost_after
        How long the machine of a replica may acknowledge nothing that was sent to it. It is not the engine that does, so
        that a busy one is never meant: the machine is gone, or the way to it. The request goes to another replica.
    check_after
        How long an engine may be silent before it is asked whether it is well, where it can tell beside its computing.
    check_timeout
        For each of two such questions; after both, it hangs: the request goes to another replica, or its client is told.
        Together with `check_after` below the half minute for which people wait before they think that all is broken.
    aside
        How long a replica that could not be reached is passed over while others are there; doubled each time, up to
        eightfold.
    shutdown_delay
        How long after a SIGTERM requests are still taken, for those who have not heard yet that this replica
        goes: ``LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS``. Each answer says that its connection ends with it, so
        that clients who keep theirs move to another replica between two requests. Nobody else to go to: 0.
    drain
        How long running requests may go on after that: ``LLMOS_GATEWAY_DRAIN_SECONDS``. Whoever sends the
        signal has to wait for longer than both before it kills.
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
        """The bounds as whoever runs the gateway sets them.

        Raises
        ------
        UsageError
            A variable can't be read; the message names it.
        """
        default = cls()
        return replace(
            default,
            allowed_origins=_origins(environ),
            drain=_seconds(environ, ENV_DRAIN, default.drain),
            shutdown_delay=_seconds(environ, ENV_SHUTDOWN_DELAY, default.shutdown_delay),
        )


def _origins(environ: Mapping[str, str]) -> frozenset[str]:
    origins = frozenset(text.strip().lower() for text in environ.get(ENV_ORIGINS, "").split(",") if text.strip())
    for origin in sorted(origins):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f'{ENV_ORIGINS}: "{origin[:80]}" is not an origin: https://app.example.org, without a path; with commas between.'
            )
    return origins


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_DRAIN:
        raise UsageError(f'{name}: "{text[:20]}" is not a number of seconds from 0 to {_LONGEST_DRAIN:.0f}.')
    return seconds
