"""Local copies of a cluster's objects, kept up to date by list and watch.

It follows Kubernetes' reflectors (https://pkg.go.dev/k8s.io/client-go/tools/cache): list once, watch the changes from
there, list again when the server no longer has all of them, and retry with a growing delay while it doesn't
answer. Objects are plain JSON, reduced to the fields that are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmos.errors import LLMOSError
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.processes.restarts import BackOff

__all__ = ["Key", "Reflector"]

Key = tuple[str, str]
"""Namespace and name."""
Object = dict[str, Any]

_IDLE: Final = 90.0
"""Seconds without a byte after which a watch counts as dead."""
_WATCH: Final = 60
"""Seconds after which the server regularly ends a watch, before it counts as dead, since the server sends no
bookmarks on a watch that has never had an event."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_FORBIDDEN, _GONE = 403, 410

logger = logging.getLogger(__name__)


class Reflector:
    """A local copy of the objects of one kind that match a selector.

    Parameters
    ----------
    api
        The connection to the cluster.
    path
        The path of all objects of the kind: ``/api/v1/pods``.
    params
        The query parameters with the selectors.
    keep
        Returns the reduced object to keep; None to ignore the object.
    changed
        Called with the kept object before and after a change; None if there is none.
    forgets
        Whether objects that may no longer be read count as deleted: in a namespace that is deleted, the right to read
        ends before the objects do.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        path: str,
        *,
        params: Mapping[str, str],
        keep: Callable[[Object], Object | None],
        changed: Callable[[Object | None, Object | None], None],
        forgets: bool = False,
    ) -> None:
        self.synced = asyncio.Event()
        """Set once all objects are listed."""
        self.objects: dict[Key, Object] = {}
        self._api = api
        self._path = path
        self._params = dict(params)
        self._keep = keep
        self._changed = changed
        self._forgets = forgets

    async def run(self) -> None:
        """List and watch until cancelled."""
        version: str | None = None
        pauses = BackOff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                if version is None:
                    version = await self._list()
                    self.synced.set()
                async for changed in self._watch(version):
                    version = changed
                    pauses.forget()
                continue  # a regular end
            except APIError as error:
                if error.status == _GONE:
                    version = None
                elif error.status == _FORBIDDEN and self._forgets:
                    logger.info("Following %s: %s", self._path, error)
                    version = None
                    for key in tuple(self.objects):
                        self._changed(self.objects.pop(key), None)
                else:
                    logger.warning("Following %s failed: %s", self._path, error)
            except LLMOSError as error:
                logger.warning("Following %s: %s", self._path, error.message)
            except Exception:
                logger.exception("Following %s failed; listing again", self._path)
                version = None
            await asyncio.sleep(pauses.next() * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all reconnect at once

    async def _list(self) -> str:
        version, seen = "", set[Key]()
        async for page in self._api.list_pages(self._path, params=self._params):
            version = version or page["metadata"]["resourceVersion"]
            # in a list only the list itself has apiVersion and kind
            what = {"apiVersion": page.get("apiVersion", ""), "kind": str(page.get("kind", "")).removesuffix("List")}
            for listed in page.get("items") or ():
                item = {**what, **listed}
                if (key := self.take(item)) is not None:
                    seen.add(key)
        for key in [key for key in self.objects if key not in seen]:
            self._changed(self.objects.pop(key), None)
        return version

    async def _watch(self, version: str) -> Any:
        watch = self._api.watch(self._path, params=self._params, version=version, seconds=_WATCH, idle=_IDLE)
        async with contextlib.aclosing(watch) as events:
            async for event in events:
                obj = event["object"]
                if event["type"] == "DELETED":
                    self._remove(obj)
                elif event["type"] != "BOOKMARK":
                    self.take(obj)
                yield obj["metadata"]["resourceVersion"]

    def take(self, obj: Object) -> Key | None:
        """Store an object that the server returned, unless a newer version is known; return its key if it is kept."""
        key = _key(obj)
        old = self.objects.get(key)
        if old is not None and _version(old) >= _version(obj):
            return key  # as after each own change: `take` was faster than the watch
        new = self._keep(obj)
        if new is None:
            return None
        self.objects[key] = new
        self._changed(old, new)
        return key

    def _remove(self, obj: Object) -> None:
        key = _key(obj)
        old = self.objects.get(key)
        if old is not None and _version(old) <= _version(obj):
            del self.objects[key]
            self._changed(old, None)


def _key(obj: Object) -> Key:
    meta = obj["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])


def _version(obj: Object) -> int:
    """Return an object's resourceVersion as a number; Kubernetes guarantees since 1.35 that they are comparable."""
    text = str(obj["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0
