"""Watches: every change as a line of JSON, as Kubernetes sends them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from llmos_hub.api.dependencies import Call
from llmos_hub.api.rendering import error_line, watch_line
from llmos_hub.api.streams import LineStream
from llmos_hub.managers.settings import MAX_STREAMS, STREAM_TIMEOUT
from llmos_hub.policy import require
from llmos_hub.stores.base import BOOKMARK, Listing, WatchEvent

__all__ = ["watch_resources"]


async def watch_resources(call: Call) -> Response:
    """Changes after ``resourceVersion``; without one (or 0) what there is comes first, as ``ADDED``."""
    require(call.caller, "watch", call.kind, call.namespace)
    services, kind, namespace, labels, name = call.services, call.kind, call.namespace, call.labels, call.only_name
    version = call.query.get("resourceVersion", "")
    asked, allowed = call.number("timeoutSeconds"), await services.settings.value(STREAM_TIMEOUT)
    limit = await services.settings.value(MAX_STREAMS)

    async def check() -> None:
        require(await services.identity.authenticate(call.token), "watch", kind, namespace)

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(services.streams.counted(call.caller.name, limit))
        first: Listing[Any] | None = None
        if version in {"", "0"}:
            first = await services.resources.list(kind, namespace, labels=labels, name=name)
            version = first.resource_version
        watch = services.resources.watch(kind, namespace, resource_version=version, labels=labels, name=name)
        events = await stack.enter_async_context(watch)
        return LineStream(
            _lines(call, first, events),
            streams=services.streams,
            resources=stack.pop_all(),
            lifetime=min(asked or allowed, allowed),
            check=check,
            failure=lambda error: error_line(call.tagged(error)),
            media_type="application/json;stream=watch",
        )


async def _lines(
    call: Call, first: Listing[Any] | None, events: AsyncIterator[WatchEvent[Any]]
) -> AsyncIterator[bytes]:
    if first is not None:
        for resource in first.items:
            yield watch_line(call.kind, WatchEvent("ADDED", resource, first.resource_version))
        yield watch_line(call.kind, WatchEvent(BOOKMARK, None, first.resource_version), initial_end=True)
    async for event in events:
        yield watch_line(call.kind, event)
