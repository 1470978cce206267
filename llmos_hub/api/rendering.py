"""The JSON of resources, lists, events and errors, in Kubernetes' format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse

from llmos.errors import LLMOSError
from llmos.resources import API_VERSION, Resource
from llmos_hub.policy import Ref, Rights
from llmos_hub.stores.base import Event, Page, WatchEvent

__all__ = ["error_line", "event_list", "listing", "rendered", "respond", "watch_line", "whole_list"]

_INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


_LOG_LINES = "lastLogLines"


def rendered(resource: Resource, rights: Rights) -> dict[str, Any]:
    """Return the resource as JSON, without write-only fields, nor log lines that the caller may not read."""
    body = resource.dump()
    if resource.has_logs and not rights.may("logs", Ref.of(resource)):
        body["status"].pop(_LOG_LINES, None)
    for name in resource.write_only:
        field = type(resource.spec).model_fields[name]
        body["spec"].pop(field.alias or name, None)
    return body


def respond(resource: Resource, rights: Rights, *, created: bool = False) -> JSONResponse:
    """Return the answer with a resource."""
    return JSONResponse(rendered(resource, rights), status_code=201 if created else 200)


def listing(kind: type[Resource], page: Page[Any], rights: Rights) -> dict[str, Any]:
    """Return a list, or a page of one, with the version to watch from and the token of the next page."""
    metadata = {"resourceVersion": page.resource_version}
    if page.token:
        metadata["continue"] = page.token
    return {
        "apiVersion": API_VERSION,
        "kind": f"{kind.kind_name()}List",
        "metadata": metadata,
        "items": [rendered(r, rights) for r in page.items],
    }


async def whole_list(
    kind: type[Resource], first: Page[Any], rest: AsyncIterator[Sequence[Resource]], rights: Rights
) -> AsyncIterator[bytes]:
    """Yield the list of all pages in pieces, so that it is never in memory as a whole."""
    head = listing(kind, Page(first.items, first.resource_version), rights)
    yield json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-2].encode()  # open: without the last "]}"
    begun = bool(first.items)
    del first, head
    async for items in rest:
        if items:
            some = json.dumps([rendered(r, rights) for r in items], ensure_ascii=False, separators=(",", ":"))[1:-1]
            yield (("," if begun else "") + some).encode()
            begun = True
    yield b"]}"


def _line(type_: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": body}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def watch_line(kind: type[Resource], event: WatchEvent[Any], rights: Rights, *, initial_end: bool = False) -> bytes:
    """Return the line of a watch event; `initial_end` marks the bookmark that ends the existing resources.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists
    """
    if event.resource is not None:
        return _line(event.type, rendered(event.resource, rights))
    metadata: dict[str, Any] = {"resourceVersion": event.resource_version}
    if initial_end:
        metadata["annotations"] = _INITIAL_EVENTS_END
    return _line(event.type, {"apiVersion": API_VERSION, "kind": kind.kind_name(), "metadata": metadata})


def error_line(error: LLMOSError) -> bytes:
    """Return the last line of a watch that failed."""
    return _line("ERROR", error.to_status())


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def event_list(events: Sequence[Event]) -> dict[str, Any]:
    """Return a list of events, oldest first."""
    return {
        "apiVersion": API_VERSION,
        "kind": "EventList",
        "metadata": {},
        "items": [
            {
                "type": e.type,
                "reason": e.reason,
                "message": e.message,
                "firstTimestamp": _time(e.first),
                "lastTimestamp": _time(e.last),
                "count": e.count,
            }
            for e in events
        ],
    }
