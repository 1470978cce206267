"""Requests and limits that containers must state because of a namespace's quota.

A CPU limit slows a process down even on an idle node, so our containers have none, unless a quota restricts
``limits.cpu``: then the cluster refuses pods with a container that doesn't state it.
Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from llmos.errors import Unavailable
from llmos_hub.kubernetes_api import APIError, KubernetesAPI, path_of

__all__ = ["Demands", "state_limits"]

_REMEMBERED: Final = 120.0
"""Seconds for which an answer is cached: quotas change rarely, and a download is reconciled twice a second."""
_MOST: Final = 10_000
_REQUEST: Final = {"cpu": "100m", "memory": "128Mi"}
"""Requests of containers that must state a limit: without a request, the limit would be the request."""
_LIMIT: Final = {"cpu": "1", "memory": "1Gi"}
"""Limits if nothing else is known: one core, and the maximum memory of a download."""


class Demands:
    """A cache of the limits and requests of CPU and memory that containers in a namespace must state.

    Parameters
    ----------
    api
        The connection to the cluster.
    clock
        A monotonic clock in seconds.
    """

    def __init__(self, api: KubernetesAPI, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def of(self, namespace: str) -> frozenset[str]:
        """Return the resources with a quota but without a LimitRange's default; if unreadable, the last known ones.

        Raises
        ------
        Unavailable
            They can't be read and are not cached: assuming none would restart all engines later.
        """
        known = self._known.get(namespace)
        if known is not None and self._clock() < known[0]:
            return known[1]
        try:
            found = frozenset([kind async for kind in self._read(namespace)])
        except APIError as error:
            if known is None:
                raise Unavailable(f"What the quota of namespace {namespace} wants can't be read: {error}.") from None
            found = known[1]
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[namespace] = (self._clock() + _REMEMBERED, found)
        return found

    async def _read(self, namespace: str) -> Any:
        bounded: set[str] = set()
        async for quota in self._objects("resourcequotas", namespace):
            hard = (quota.get("spec") or {}).get("hard") or {}
            # "cpu" and "memory" mean the requests
            bounded |= {name if "." in name else f"requests.{name}" for name in hard}
        wanted = bounded & {f"{part}.{name}" for part in ("limits", "requests") for name in _LIMIT}
        if not wanted:
            return
        filled: set[str] = set()
        async for limits in self._objects("limitranges", namespace):
            for item in (limits.get("spec") or {}).get("limits") or ():
                if item.get("type") == "Container":
                    filled |= {f"limits.{name}" for name in item.get("default") or ()}
                    filled |= {f"requests.{name}" for name in item.get("defaultRequest") or item.get("default") or ()}
        for name in wanted - filled:
            yield name

    async def _objects(self, plural: str, namespace: str) -> Any:
        async for page in self._api.list_pages(path_of("v1", plural, namespace)):
            for item in page.get("items") or ():
                yield item


def state_limits(obj: dict[str, Any], demands: frozenset[str]) -> dict[str, Any]:
    """Return the object with the requests and limits that its containers must state.

    An engine never gets a default memory limit: it would be killed when it exceeds it.
    """
    if demands:
        for spec in _pod_specs(obj):
            for part in ("initContainers", "containers"):
                for container in spec.get(part) or ():
                    _state(container, demands, known=part == "initContainers" or spec["restartPolicy"] == "Never")
    return obj


def _state(container: dict[str, Any], demands: frozenset[str], *, known: bool) -> None:
    resources = container.get("resources") or {}
    limits, requests = dict(resources.get("limits") or {}), dict(resources.get("requests") or {})
    for name in _LIMIT:
        if f"limits.{name}" in demands and name not in limits and (name == "cpu" or known):
            limits[name] = _LIMIT[name] if name not in requests or name == "memory" else requests[name]
            requests.setdefault(name, _REQUEST[name])
        if f"requests.{name}" in demands and name not in limits:
            requests.setdefault(name, _REQUEST[name])
    stated = {part: amounts for part, amounts in (("requests", requests), ("limits", limits)) if amounts}
    if stated:
        container["resources"] = {**resources, **stated}


def _pod_specs(obj: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    spec = obj.get("spec") or {}
    leader = spec.get("leaderWorkerTemplate") or {}
    for template in (spec.get("template"), leader.get("leaderTemplate"), leader.get("workerTemplate")):
        if template:
            yield template["spec"]
