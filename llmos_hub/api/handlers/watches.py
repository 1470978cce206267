"""Watches: one line of JSON per change, as in Kubernetes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import Response

from llmos.resources import Resource
from llmos_hub.api.dependencies import Call
from llmos_hub.api.rendering import error_line, watch_line
from llmos_hub.api.streams import LineStream
from llmos_hub.managers.settings import MAX_STREAMS, STREAM_TIMEOUT
from llmos_hub.stores.base import BOOKMARK, Page, WatchEvent

__all__ = ["watch_resources"]


async def watch_resources(call: Call) -> Response:
    """Send the changes after ``resourceVersion``; without one (or 0) existing resources come first, as ``ADDED``."""
    services, kind, namespace, selection = call.services, call.kind, call.namespace, call.selection
    version = call.resource_version
    asked, allowed = call.number("timeoutSeconds"), await services.settings.value(STREAM_TIMEOUT)
    limit = await services.settings.value(MAX_STREAMS)

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(services.streams.counted(call.caller.name, limit))
        initial: AsyncIterator[bytes] | None = None
        if not version:
            first = await services.resources.page(kind, namespace, selection)
            version = first.resource_version
            rest = services.resources.rest(first, kind, namespace, selection)
            initial = _initial(call, first, rest)
            del first  # otherwise it would stay in memory as long as the watch is open
        watch = services.resources.watch(kind, namespace, selection, resource_version=version)
        events = await stack.enter_async_context(watch)
        return LineStream(
            _lines(call, initial, events),
            streams=services.streams,
            resources=stack.pop_all(),
            lifetime=min(asked or allowed, allowed),
            check=lambda: call.still_may("watch"),
            failure=lambda error: error_line(call.tagged(error)),
            media_type="application/json;stream=watch",
        )


async def _initial(call: Call, first: Page[Any], rest: AsyncIterator[Sequence[Resource]]) -> AsyncIterator[bytes]:
    """Yield the existing resources as ``ADDED``, then the bookmark that ends them."""
    version, items = first.resource_version, first.items
    del first
    for resource in items:
        yield watch_line(call.kind, WatchEvent("ADDED", resource, version), call.rights)
    async for items in rest:
        for resource in items:
            yield watch_line(call.kind, WatchEvent("ADDED", resource, version), call.rights)
    yield watch_line(call.kind, WatchEvent(BOOKMARK, None, version), call.rights, initial_end=True)


async def _lines(
    call: Call, initial: AsyncIterator[bytes] | None, events: AsyncIterator[WatchEvent[Any]]
) -> AsyncIterator[bytes]:
    if initial is not None:
        async for line in initial:
            yield line
    async for event in events:
        yield watch_line(call.kind, event, call.rights)
