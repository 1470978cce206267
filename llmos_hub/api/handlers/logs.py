"""Logs of the processes that run for a resource, as plain text."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.responses import Response

from llmos.errors import LLMOSError, NotFound
from llmos_hub.api.dependencies import Call
from llmos_hub.api.streams import LineStream, begun
from llmos_hub.managers.settings import MAX_STREAMS, STREAM_TIMEOUT

__all__ = ["read_log"]


async def read_log(call: Call) -> Response:
    """Return the last ``tailLines`` of one ``replica`` or all; with ``follow=1`` also new lines as they are written."""
    services, replica, follow = call.services, call.query.get("replica"), call.flag("follow")
    tail = call.number("tailLines")
    lifetime, limit = await services.settings.value(STREAM_TIMEOUT), await services.settings.value(MAX_STREAMS)
    resource = await services.resources.get(call.kind, call.namespace, call.name)

    async def check() -> None:
        await call.still_may("logs")
        now = await services.resources.get(call.kind, call.namespace, call.name)
        if now.metadata.uid != resource.metadata.uid:
            raise NotFound(f"{call.name} was deleted.")

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(services.streams.counted(call.caller.name, limit))
        reading = services.logs.lines(resource, replica=replica, tail=tail, follow=follow)
        lines = await begun(_encoded(await stack.enter_async_context(reading)))
        return LineStream(
            lines,
            streams=services.streams,
            resources=stack.pop_all(),
            lifetime=lifetime,
            check=check,
            failure=lambda error: _last_line(call.tagged(error)),
            media_type="text/plain",
        )


async def _encoded(lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line.encode(errors="replace") + b"\n"


def _last_line(error: LLMOSError) -> bytes:
    return f"[llmos] {error}\n".encode()
