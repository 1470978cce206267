"""Local copies of Kubernetes' own objects of a kind; for the platform's resources see `Informer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.kubernetes.reflector import Key as ObjectKey
from llmos_hub.kubernetes.reflector import Reflector
from llmos_hub.stores.informer import Key

__all__ = ["ClusterInformer", "Object", "covers"]

Object = Mapping[str, Any]


class ClusterInformer:
    """An informer of the objects of one kind, without their status and managed fields.

    Parameters
    ----------
    api
        The connection to the cluster.
    path
        The path of the kind in all namespaces.
    selector
        The label selector of the objects.
    on_change
        Called with the key of each object that was added, changed or deleted, but not for changes of only its status.
    """

    def __init__(self, api: KubernetesAPI, path: str, selector: str, on_change: Callable[[ObjectKey], None]) -> None:
        self._on_change = on_change
        self._names: dict[str, dict[str, None]] = {}  # by namespace, in order of arrival
        self._taking = False
        self._reflector = Reflector(api, path, params={"labelSelector": selector}, keep=_kept, changed=self._changed)
        self.synced = self._reflector.synced
        """Set once all objects are listed."""
        self.run = self._reflector.run

    @property
    def connected(self) -> bool:
        """True once all objects are listed: a watch that breaks is opened again."""
        return self.synced.is_set()

    def get(self, key: Key) -> Object | None:
        """Return the last known object; None if it doesn't exist."""
        return self._reflector.objects.get((key[0] or "", key[1]))

    def items(self) -> list[tuple[Key, Object]]:
        """Return all objects with their keys."""
        return list(self._reflector.objects.items())

    def within(self, namespace: str) -> list[Object]:
        """Return all objects in a namespace."""
        return [self._reflector.objects[namespace, name] for name in self._names.get(namespace, ())]

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._reflector.objects))

    def written(self, obj: Object, /) -> None:
        """Store an object that the server has just returned, without calling `on_change` for it."""
        self._taking = True
        try:
            self._reflector.take(dict(obj))
        finally:
            self._taking = False

    def _changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        namespace, name = key = meta.get("namespace", ""), meta["name"]
        if new is None:
            self._names[namespace].pop(name)
            if not self._names[namespace]:
                del self._names[namespace]
        elif old is None:
            self._names.setdefault(namespace, {})[name] = None
        elif _content(old) == _content(new):
            return
        if not self._taking:
            self._on_change(key)


def _kept(obj: Object) -> dict[str, Any]:
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": meta}


def _content(obj: Object) -> Object:
    meta = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    return {**obj, "metadata": meta}


def covers(there: Any, wanted: Any) -> bool:
    """Return whether an object has all wanted fields; it may have more fields, but lists must be equally long.

    An empty list or object equals a missing one: the API server leaves them out. Quantities are compared as
    text; one that the server formats differently is applied again, which changes nothing.
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
