"""Events of resources as Kubernetes Events: ``kubectl describe`` shows them too.

An Event is named after the time it was made, in nanoseconds and hexadecimal, as client-go's recorder
names its own; that is also their order. The API server deletes them after its ``--event-ttl``, usually one
hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from llmos.resources.base import Resource, utcnow
from llmos_hub.kubernetes.connection import FIELD_MANAGER, MERGE_PATCH, APIError, KubernetesAPI, path_of
from llmos_hub.stores.base import Event
from llmos_hub.stores.kubernetes.objects import form_of
from llmos_hub.stores.writes import MAX_EVENTS, shortened

__all__ = ["Recorder", "make_event", "read_event"]

_REMEMBERED: Final = 4096  # resources whose newest event is cached, so that it needn't be read again
_PLAUSIBLE: Final = range(10**18, 10**19)  # nanoseconds since 1970, from 2001 to 2286


@dataclass
class _Newest:
    """The newest event of a resource that this process knows."""

    known: bool = False
    name: str = ""
    said: tuple[str, str, str] = ("", "", "")
    count: int = 0
    recorded: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def _micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def make_event(
    resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str, *, stamp: int
) -> dict[str, Any]:
    """Return the Event object.

    Parameters
    ----------
    resource, type_, reason, message
        The event and the resource it is about.
    stamp
        Time of the event, in nanoseconds since 1970.
    """
    meta = resource.metadata
    moment = datetime.fromtimestamp(stamp / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name}.{stamp:x}", "namespace": meta.namespace},
        "involvedObject": {
            **form_of(type(resource)).reference(resource),
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        },
        "type": type_,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
    }


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _stamp(name: str) -> datetime | None:
    """Return the time an event was made, from its name; None if the name doesn't hold one."""
    try:
        nanoseconds = int(name.rpartition(".")[2], 16)
    except ValueError:
        return None
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds in _PLAUSIBLE else None


def read_event(obj: Mapping[str, Any]) -> Event:
    """Return the event of an Event object, whoever recorded it, in the old style or the new (with a series)."""
    series = obj.get("series") or {}
    made = _stamp(obj["metadata"]["name"])
    told = _moment(obj.get("eventTime")) or _moment(obj.get("firstTimestamp"))
    # the name is more precise than the field, which has whole seconds
    first = made if made and (told is None or made.replace(microsecond=0) == told.replace(microsecond=0)) else told
    first = first or _moment(obj["metadata"].get("creationTimestamp")) or utcnow()
    last = _moment(series.get("lastObservedTime")) or _moment(obj.get("lastTimestamp")) or first
    return Event(
        type="Warning" if obj.get("type") == "Warning" else "Normal",
        reason=str(obj.get("reason") or ""),
        message=str(obj.get("message") or obj.get("note") or ""),
        first=first,
        last=max(first, last),
        count=int(series.get("count") or obj.get("count") or 1),
    )


class Recorder:
    """A writer and reader of resources' events.

    Parameters
    ----------
    api
        The connection to the cluster.
    """

    def __init__(self, api: KubernetesAPI) -> None:
        self._api = api
        self._started = utcnow().replace(microsecond=0)
        self._newest: OrderedDict[str, _Newest] = OrderedDict()
        self._last_stamp = 0

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event; see `llmos_hub.stores.base.Store.record`.

        Raises
        ------
        APIError
            The server refused for a reason other than that the namespace is gone.
        """
        message = shortened(message)
        newest = self._newest_of(resource)
        async with newest.lock:
            try:
                if not newest.known:
                    await self._look(resource, newest)
                if newest.said == (type_, reason, message):
                    await self._look(resource, newest)  # another process may have recorded one since
                    if newest.said == (type_, reason, message) and await self._count(resource, newest):
                        return
                await self._add(resource, newest, make_event(resource, type_, reason, message, stamp=self._now()))
            except APIError as error:
                gone = error.status == 404 or error.because("NamespaceTerminating")
                if not gone:
                    raise

    async def events(self, resource: Resource) -> Sequence[Event]:
        """Return a resource's events, oldest first."""
        return [read_event(obj) for obj in await self._objects(resource)]

    def _now(self) -> int:
        """Return the current time in nanoseconds; never the same value twice."""
        self._last_stamp = max(time.time_ns(), self._last_stamp + 1000)
        return self._last_stamp

    def _newest_of(self, resource: Resource) -> _Newest:
        uid = str(resource.metadata.uid)
        found = self._newest.pop(uid, None)
        if found is None:
            # a resource younger than this process is assumed to have no event from another process; if it has one, the
            # only harm is that two equal events are not counted together
            created = resource.metadata.creation_timestamp
            found = _Newest(known=created is not None and created >= self._started)
        self._newest[uid] = found
        while len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)
        return found

    async def _objects(self, resource: Resource) -> list[dict[str, Any]]:
        meta = resource.metadata
        path = path_of("v1", "events", meta.namespace)
        answer = await self._api.request("GET", path, params={"fieldSelector": f"involvedObject.uid={meta.uid}"})
        items: list[dict[str, Any]] = answer.get("items") or []
        return sorted(items, key=lambda obj: (read_event(obj).first, obj["metadata"]["name"]))

    async def _look(self, resource: Resource, newest: _Newest) -> None:
        """Read the newest event from the cluster."""
        objects = await self._objects(resource)
        newest.known, newest.recorded = True, len(objects)
        newest.name, newest.said, newest.count = "", ("", "", ""), 0
        if objects:
            last = objects[-1]
            event = read_event(last)
            newest.name, newest.count = last["metadata"]["name"], event.count
            newest.said = (event.type, event.reason, event.message)

    async def _count(self, resource: Resource, newest: _Newest) -> bool:
        """Count it with the newest event; return False if that is gone."""
        now, count = utcnow(), newest.count + 1
        change = {
            "count": count,
            "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "series": {"count": count, "lastObservedTime": _micro(now)},
        }
        path = path_of("v1", "events", resource.metadata.namespace, newest.name)
        try:
            await self._api.request("PATCH", path, body=change, content_type=MERGE_PATCH)
        except APIError as error:
            if error.status != 404:
                raise
            return False
        newest.count = count
        return True

    async def _add(self, resource: Resource, newest: _Newest, obj: dict[str, Any]) -> None:
        await self._api.request("POST", path_of("v1", "events", resource.metadata.namespace), body=obj)
        newest.name, newest.count = obj["metadata"]["name"], 1
        newest.said = (obj["type"], obj["reason"], obj["message"])
        newest.recorded += 1
        if newest.recorded > MAX_EVENTS:
            objects = await self._objects(resource)
            for old in objects[:-MAX_EVENTS]:
                with contextlib.suppress(APIError):  # gone already
                    await self._api.request(
                        "DELETE", path_of("v1", "events", resource.metadata.namespace, old["metadata"]["name"])
                    )
            newest.recorded = min(len(objects), MAX_EVENTS)
