"""Requests and limits that containers must state because of a namespace's quota.

A CPU limit slows a process down even on an idle node, so our containers have none, unless a quota restricts
``limits.cpu``: then the cluster refuses pods with a container that doesn't state it.
Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from llmos_hub.backends.kubernetes.pods import pod_specs
from llmos_hub.kubernetes.connection import KubernetesAPI, path_of
from llmos_hub.kubernetes.reflector import Reflector

__all__ = ["Demands", "state_limits"]

_REQUEST: Final = {"cpu": "100m", "memory": "128Mi"}
"""Requests of containers that must state a limit: without a request, the limit would be the request."""
_LIMIT: Final = {"cpu": "1", "memory": "1Gi"}
"""Limits if nothing else is known: one core, and the maximum memory of a download."""
_STATED: Final = frozenset(f"{part}.{name}" for part in ("limits", "requests") for name in _LIMIT)


class Demands:
    """The limits and requests of CPU and memory that containers must state, by namespace.

    It watches all quotas and limit ranges of the cluster: there are two requests in all, whatever the number of
    namespaces.

    Parameters
    ----------
    api
        The connection to the cluster.
    changed
        Called with a namespace whose demands have changed.

    Attributes
    ----------
    reflectors
        The local copies of quotas and limit ranges, by kind. The caller runs them; until they are synced,
        nothing is known.
    """

    def __init__(self, api: KubernetesAPI, changed: Callable[[str], None]) -> None:
        kinds = {"ResourceQuota": ("resourcequotas", _keep_quota), "LimitRange": ("limitranges", _keep_defaults)}
        self.reflectors = {
            kind: Reflector(api, path_of("v1", plural), params={}, keep=keep, changed=self._changed)
            for kind, (plural, keep) in kinds.items()
        }
        self._told = changed
        # without an API's answer in between: `of` is called for each change of a workload
        self._stated: dict[str, dict[tuple[str, str], frozenset[str]]] = defaultdict(dict)

    def of(self, namespace: str) -> frozenset[str]:
        """Return the resources with a quota but without a LimitRange's default: ``limits.cpu`` and the like."""
        bounded, filled = set[str](), set[str]()
        for (kind, _), names in self._stated.get(namespace, {}).items():
            (bounded if kind == "ResourceQuota" else filled).update(names)
        return frozenset(bounded - filled)

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if old is not None and new is not None and old["names"] == new["names"]:
            return  # a change of a quota's status, as with every pod
        obj = new or old
        assert obj is not None
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        before = self.of(namespace)
        stated = self._stated[namespace]
        if new is not None:
            stated[obj["kind"], name] = new["names"]
        else:
            stated.pop((obj["kind"], name), None)
        if not stated:
            del self._stated[namespace]
        if self.of(namespace) != before:
            self._told(namespace)


def _keep_quota(obj: dict[str, Any]) -> dict[str, Any]:
    hard = (obj.get("spec") or {}).get("hard") or {}
    # "cpu" and "memory" mean the requests
    return _kept(obj, (name if "." in name else f"requests.{name}" for name in hard))


def _keep_defaults(obj: dict[str, Any]) -> dict[str, Any]:
    filled = set[str]()
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            filled |= {f"limits.{name}" for name in item.get("default") or ()}
            filled |= {f"requests.{name}" for name in item.get("defaultRequest") or item.get("default") or ()}
    return _kept(obj, filled)


def _kept(obj: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    metadata = {name: obj["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
    return {"kind": obj["kind"], "metadata": metadata, "names": _STATED & set(names)}


def state_limits(obj: dict[str, Any], demands: frozenset[str]) -> dict[str, Any]:
    """Return the object with the requests and limits that its containers must state.

    An engine never gets a default memory limit: it would be killed when it exceeds it.
    """
    if demands:
        for spec in pod_specs(obj):
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
