"""Watches that survive expired versions, broken connections and restarts of the API.

They are level-triggered, as controllers are
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes): after every
interruption the list is read again and compared with the known state, so that no change is missed.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from llmos.client._async.transport import AsyncTransport, response_lines
from llmos.client.messages import Listing, Step, WatchEvent, events_between, read
from llmos.client.requests import resource_path
from llmos.client.timing import asleep
from llmos.errors import Expired, Unavailable, from_status
from llmos.resources import Resource

__all__ = ["fetch_listing", "follow", "steps"]

R = TypeVar("R", bound=Resource)

_QUIET = 45.0
"""Seconds without a line after which a watch is considered dead; the API sends a bookmark every 30 seconds."""
_PAGE = 500
"""Resources requested per page; the API sends fewer where they are large."""
_LISTINGS = 3
"""Maximum number of attempts to read a list."""
_PAUSE = 0.5
"""Seconds between two attempts while the API is unreachable."""


async def fetch_listing(
    transport: AsyncTransport, kind: type[R], namespace: str | None, selector: str | None
) -> Listing[R]:
    """Return all resources of a kind, in one namespace or, for None, in all."""
    for _ in range(_LISTINGS - 1):
        with contextlib.suppress(Expired):  # reading all pages took longer than the API keeps a version: start again
            return await _all_pages(transport, kind, namespace, selector)
    return await _all_pages(transport, kind, namespace, selector)


async def _all_pages(
    transport: AsyncTransport, kind: type[R], namespace: str | None, selector: str | None
) -> Listing[R]:
    params = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
    items: list[R] = []
    version = ""
    while True:
        data = await transport.request("GET", resource_path(kind, namespace), params=params)
        page = data if isinstance(data, dict) else {}
        found = page.get("metadata")
        metadata: dict[str, Any] = found if isinstance(found, dict) else {}
        items += [read(kind, item) for item in page.get("items") or ()]
        version = version or str(metadata.get("resourceVersion") or "")
        if not (token := metadata.get("continue")):
            return Listing(items, resource_version=version)
        params["continue"] = str(token)


async def follow(
    transport: AsyncTransport,
    kind: type[R],
    namespace: str | None,
    selector: str | None,
    *,
    resource_version: str,
    quiet: float = _QUIET,
) -> AsyncGenerator[WatchEvent[R]]:
    """Yield the events of one watch request until it ends.

    Raises
    ------
    Expired
        The version is too old; the list must be read again.
    Unavailable
        The connection was closed early.
    TimeoutError
        Nothing came for `quiet` seconds.
    """
    params = {"watch": "1", "resourceVersion": resource_version}
    if selector:
        params["labelSelector"] = selector
    path = resource_path(kind, namespace)
    async with transport.stream("GET", path, params=params, read_timeout=quiet, quiet_is_error=False) as response:
        async for line in response_lines(response):
            if line.strip():
                event = _read_line(kind, line)
                if event is not None:
                    yield event


def _read_line(kind: type[R], line: str) -> WatchEvent[R] | None:
    try:
        data: Any = json.loads(line)
        type_, obj = data["type"], data["object"]
    except (ValueError, TypeError, KeyError):
        raise Unavailable("The API sent a line that is no watch event.") from None
    if type_ == "ERROR":
        status = obj.get("code")
        raise from_status(obj, status=status if isinstance(status, int) else 500)
    if type_ not in {"ADDED", "MODIFIED", "DELETED"}:
        return None
    return WatchEvent(type_, read(kind, obj))


async def steps(
    transport: AsyncTransport,
    kind: type[R],
    namespace: str | None,
    selector: str | None = None,
    *,
    patience: float = 60.0,
    quiet: float = _QUIET,
    deadline: float = math.inf,
) -> AsyncGenerator[Step[R]]:
    """Yield all resources, again after each change, without end.

    Parameters
    ----------
    transport, kind, namespace, selector
        The resources to watch.
    patience
        Maximum time in seconds that the API may be unreachable.
    quiet
        Time in seconds without a change after which a step is yielded anyway.
    deadline
        Moment of ``time.monotonic`` at which a step is yielded in any case.

    Yields
    ------
    Step
        First the list; then one step per change, per `quiet` seconds without one, and per attempt while the API
        is unreachable.

    Raises
    ------
    Unavailable
        The API was unreachable for longer than `patience`.
    LLMOSError
        The API returned an error.
    """
    known: Mapping[str, R] = {}
    away_since: float | None = None
    while True:
        try:
            listing = await fetch_listing(transport, kind, namespace, selector)
            items = {item.key: item for item in listing}
            yield Step(events_between(known, items), items)
            known, away_since = items, None
            wait = max(0.05, min(quiet, deadline - time.monotonic()))
            watch = follow(transport, kind, namespace, selector, resource_version=listing.resource_version, quiet=wait)
            async with aclosing(watch) as events:
                async for event in events:
                    known = _after(known, event)
                    yield Step((event,), known)
        except (Expired, TimeoutError):
            pass
        except Unavailable as error:
            away_since = away_since if away_since is not None else time.monotonic()
            left = patience - (time.monotonic() - away_since)
            if left <= 0:
                raise
            yield Step((), known, away=f"{error.message.rstrip('.')}. Trying for another {left:.0f} s.")
        await asleep(_PAUSE)


def _after(known: Mapping[str, R], event: WatchEvent[R]) -> Mapping[str, R]:
    items = dict(known)
    if event.type == "DELETED":
        items.pop(event.resource.key, None)
    else:
        items[event.resource.key] = event.resource
    return items
