"""How resources, lists, events and errors look on the wire: as Kubernetes has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse

from llmos.errors import LLMOSError
from llmos.resources import API_VERSION, Resource
from llmos_hub.stores.base import Event, Listing, WatchEvent

__all__ = ["error_line", "event_list", "listing", "rendered", "respond", "watch_line"]

_INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


def rendered(resource: Resource) -> dict[str, Any]:
    """The resource as JSON, without the fields that are never read back."""
    body = resource.dump()
    for name in resource.write_only:
        field = type(resource.spec).model_fields[name]
        body["spec"].pop(field.alias or name, None)
    return body


def respond(resource: Resource, *, created: bool = False) -> JSONResponse:
    """The resource as an answer."""
    return JSONResponse(rendered(resource), status_code=201 if created else 200)


def listing(kind: type[Resource], found: Listing[Any]) -> dict[str, Any]:
    """A list, and from where to watch."""
    return {
        "apiVersion": API_VERSION,
        "kind": f"{kind.kind_name()}List",
        "metadata": {"resourceVersion": found.resource_version},
        "items": [rendered(r) for r in found.items],
    }


def _line(type_: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": body}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def watch_line(kind: type[Resource], event: WatchEvent[Any], *, initial_end: bool = False) -> bytes:
    """One event of a watch; `initial_end` marks the bookmark after which changes are news.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists
    """
    if event.resource is not None:
        return _line(event.type, rendered(event.resource))
    metadata: dict[str, Any] = {"resourceVersion": event.resource_version}
    if initial_end:
        metadata["annotations"] = _INITIAL_EVENTS_END
    return _line(event.type, {"apiVersion": API_VERSION, "kind": kind.kind_name(), "metadata": metadata})


def error_line(error: LLMOSError) -> bytes:
    """The last line of a watch that went wrong."""
    return _line("ERROR", error.to_status())


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def event_list(events: Sequence[Event]) -> dict[str, Any]:
    """What happened, oldest first."""
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
