"""A local copy of the cluster's own objects of a kind, by list and watch; for resources there is `Informer`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from llmos.errors import LLMOSError
from llmos_hub.controllers.workqueue import Backoff
from llmos_hub.kubernetes_api import APIError, KubernetesAPI

__all__ = ["ClusterInformer", "Object", "ObjectKey", "covers"]

Object = Mapping[str, Any]
ObjectKey = tuple[str, str]
"""Namespace (empty where there is none) and name."""

_BACKOFF: Final = Backoff(base=0.2, ceiling=10.0)
_WATCH: Final = 60
"""Seconds after which the server ends a watch in an orderly way, to be gone on with: sooner than it counts as dead, since
the server sends no bookmarks where it has never had news to tell."""
_IDLE: Final = 90.0
"""Seconds without a line after which a connection counts as dead."""

logger = logging.getLogger(__name__)


class ClusterInformer:
    """The objects of one kind, as last heard of, without what only servers need of them.

    Parameters
    ----------
    api
        The connection.
    path
        Of the kind in all namespaces.
    selector
        The labels that they have.
    on_change
        Called with the key of each that came, changed or went, and of all after a list.
    """

    def __init__(self, api: KubernetesAPI, path: str, selector: str, on_change: Callable[[ObjectKey], None]) -> None:
        self.synced = asyncio.Event()
        self.connected = False
        self._api = api
        self._path = path
        self._selector = selector
        self._on_change = on_change
        self._objects: dict[str, dict[str, Object]] = {}  # by namespace

    def get(self, key: ObjectKey) -> Object | None:
        """The object as last heard of."""
        return self._objects.get(key[0], {}).get(key[1])

    def within(self, namespace: str) -> list[Object]:
        """All in a namespace."""
        return list(self._objects.get(namespace, {}).values())

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter([(namespace, name) for namespace, objects in self._objects.items() for name in objects])

    def take(self, obj: Object) -> None:
        """Take over what the server has just answered with, so that the watch brings no news of it."""
        known = self.get(_key(obj))
        if known is None or _version(known) < _version(obj):
            self._put(_kept(obj))

    async def run(self) -> None:
        """List and follow until cancelled."""
        failures = 0
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                version = await self._watch(version)
                failures = 0
                continue
            except APIError as error:
                if error.status == 410:
                    version = None
                failure: Exception = error
            except LLMOSError as error:
                failure = error
            except Exception as error:
                logger.exception("Following %s failed; listing again", self._path)
                version, failure = None, error
            finally:
                self.connected = False
            failures += 1
            if failures in (2, 6):
                logger.warning("%s can't be followed: %s", self._path, failure)
            await asyncio.sleep(_BACKOFF.delay(failures))

    async def _list(self) -> str:
        known = set(self)
        fresh: list[Object] = []
        version = ""
        async for page in self._api.list_pages(self._path, params={"labelSelector": self._selector}):
            version = version or page["metadata"]["resourceVersion"]
            # in a list only the list itself says what they are
            what = {"apiVersion": page["apiVersion"], "kind": str(page["kind"]).removesuffix("List")}
            fresh += [_kept({**what, **obj}) for obj in page["items"]]
        self._objects = {}
        for obj in fresh:
            self._put(obj)
        self.synced.set()
        for key in known | set(self):
            self._on_change(key)
        return version

    async def _watch(self, version: str) -> str:
        """Follow from there; returns where to go on."""
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH),
            "labelSelector": self._selector,
        }
        async with self._api.lines(self._path, params=params, idle=_IDLE) as lines:
            self.connected = True
            async for line in lines:
                event = json.loads(line)
                obj = event["object"]
                if event["type"] == "ERROR":
                    raise APIError(int(obj.get("code") or 500), obj)
                version = obj["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], obj)
        return version

    def _take(self, type_: str, obj: Object) -> None:
        key = _key(obj)
        known, new = self.get(key), _kept(obj)
        if type_ == "DELETED":
            self._objects.get(key[0], {}).pop(key[1], None)
        elif known is not None and _version(new) <= _version(known):
            return  # written by ourselves
        else:
            self._put(new)
            if known is not None and _content(known) == _content(new):
                return  # no more than its status
        self._on_change(key)

    def _put(self, obj: Object) -> None:
        namespace, name = _key(obj)
        self._objects.setdefault(namespace, {})[name] = obj


def _key(obj: Object) -> ObjectKey:
    return (obj["metadata"].get("namespace") or "", obj["metadata"]["name"])


def _kept(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": meta}


def _version(obj: Object) -> int:
    """Resource versions compare as numbers, as of Kubernetes 1.35 by contract."""
    text = str(obj["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def _content(obj: Object) -> Object:
    meta = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    return {**obj, "metadata": meta}


def covers(there: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there: more fields may be, more items of a list may not.

    An empty list or object is the same as none: the API server leaves such out. Quantities are compared as they
    are written; one that the server writes otherwise is then applied again, which changes nothing.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(there, Mapping):
            return not wanted and there is None
        return all(covers(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        there = there or []
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(covers(a, b) for a, b in zip(there, wanted, strict=True))
        )
    return bool(there == wanted) or (wanted is False and there is None)
