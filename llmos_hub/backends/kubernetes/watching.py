"""Watches of the cluster's objects, reduced to the fields that are used."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from llmos_hub.backends.kubernetes.fields import fields_of, values_of
from llmos_hub.backends.kubernetes.names import release_selector
from llmos_hub.backends.kubernetes.objects import path_of_kind
from llmos_hub.backends.kubernetes.pods import pod_specs
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.states import Notice
from llmos_hub.kubernetes.connection import KubernetesAPI, path_of
from llmos_hub.kubernetes.reflector import Reflector
from llmos_hub.names import KEY_APPLIED
from llmos_hub.tasks import cancel

__all__ = [
    "FIELDS",
    "FOLLOWED",
    "IMAGES",
    "USES_SECRET",
    "VALUES",
    "Notices",
    "SecretReflector",
    "make_reflector",
    "make_reflectors",
]

FIELDS: Final = "fields"
"""Key in a reduced object for the hash of the set of our fields."""
VALUES: Final = "values"
"""Key in a reduced object for the hash of our fields' values."""
IMAGES: Final = "images"
"""Key in a reduced object for its pods' images, by container."""
USES_SECRET: Final = "uses secret"  # noqa: S105
"""Key in a reduced object whose pods read variables from a Secret; absent from others."""
FOLLOWED: Final = ("Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy")
_META: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionTimestamp",
)
_POD_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"
_CONTAINER: Final = ("name", "command", "resources", "startupProbe", "livenessProbe")
_STATUS: Final = (
    "phase",
    "reason",
    "message",
    "podIP",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
)
_SETTLE: Final = 5.0
"""Maximum seconds to wait for Secrets: an earlier version's controllers may not have granted the right to read them."""
_SHORT: Final = 64  # characters
_MOST: Final = 5000
_PER_OBJECT: Final = 8


def _keep_metadata(obj: Mapping[str, Any]) -> dict[str, Any]:
    meta = obj["metadata"]
    return {name: meta[name] for name in _META if name in meta}


def _keep_object(obj: dict[str, Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the reduced object: metadata, status, number of pods, and images; `known` is its previous reduced form."""
    spec = obj.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    fields = fields_of(obj)
    # a change by others changes our set of fields, and a change by us the stamp
    same = known is not None and known[FIELDS] == fields and _stamp(known) == _stamp(obj)
    kept = {
        "kind": obj["kind"],
        "metadata": _keep_metadata(obj),
        "spec": {name: spec[name] for name in ("replicas", "completions") if name in spec},
        "status": obj.get("status") or {},
        FIELDS: fields,
        VALUES: known[VALUES] if same and known is not None else values_of(obj),
        IMAGES: {c["name"]: c["image"] for part in ("initContainers", "containers") for c in pod.get(part) or ()},
    }
    if _use_secret(pod_specs(obj)):
        kept[USES_SECRET] = True
    return kept


def _use_secret(pods: Iterable[Mapping[str, Any]]) -> bool:
    return any(
        "secretKeyRef" in (variable.get("valueFrom") or ())
        for pod in pods
        for part in ("initContainers", "containers")
        for container in pod.get(part) or ()
        for variable in container.get("env") or ()
    )


def _stamp(obj: Mapping[str, Any]) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(KEY_APPLIED, ""))


def _keep_pod(obj: dict[str, Any]) -> dict[str, Any]:
    spec, status, meta = obj["spec"], obj.get("status") or {}, _keep_metadata(obj)
    meta["annotations"] = {
        name: value for name, value in (meta.get("annotations") or {}).items() if name == _POD_ANNOTATION
    }
    kept: dict[str, Any] = {
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "nodeName": spec.get("nodeName", ""),
            "restartPolicy": spec.get("restartPolicy", "Always"),
            "containers": [{name: c[name] for name in _CONTAINER if name in c} for c in spec["containers"]],
        },
        "status": {name: status[name] for name in _STATUS if name in status},
    }
    if _use_secret([spec]):
        kept[USES_SECRET] = True
    return kept


def _lean(value: Any) -> Any:
    """Return an equal value with interned strings: names and labels repeat in thousands of objects."""
    if isinstance(value, dict):
        return {sys.intern(name): _lean(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_lean(part) for part in value]
    return sys.intern(value) if type(value) is str and len(value) <= _SHORT else value


class Notices:
    """The Events of type Warning about pods and jobs, which give reasons of failures."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self.by_uid: OrderedDict[str, Sequence[Notice]] = OrderedDict()
        self._changed = changed

    def keep(self, obj: dict[str, Any]) -> dict[str, Any] | None:
        """Return the used parts of an Event; None for Events to ignore."""
        about = obj.get("involvedObject") or {}
        if about.get("kind") not in ("Pod", "Job") or obj.get("type") != "Warning":
            return None
        series = obj.get("series") or {}
        at = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
        return {
            "kind": "Event",
            "metadata": {name: obj["metadata"].get(name, "") for name in ("name", "namespace", "resourceVersion")},
            "about": (about.get("kind"), about.get("namespace", ""), about.get("name", ""), about.get("uid", "")),
            "notice": Notice(str(obj.get("reason", "")), str(obj.get("message", "")), str(at or "")),
        }

    def changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Store an Event; expired ones are kept until there are too many."""
        del old
        if new is None:
            return
        _, namespace, name, uid = new["about"]
        notice: Notice = new["notice"]
        others = [n for n in self.by_uid.get(uid, ()) if (n.reason, n.message) != (notice.reason, notice.message)]
        self.by_uid[uid] = [notice, *others][:_PER_OBJECT]
        self.by_uid.move_to_end(uid)
        while len(self.by_uid) > _MOST:
            self.by_uid.popitem(last=False)
        self._changed(namespace, name)

    def forget(self, uid: str) -> None:
        """Drop the Events of a deleted object."""
        self.by_uid.pop(uid, None)


Changed = Callable[[dict[str, Any] | None, dict[str, Any] | None], None]


class SecretReflector:
    """The Secrets of workloads, watched in the namespaces that have any, without a right to read all of a cluster.

    Secrets in a namespace that can't be read (yet, or any more) are unknown, and nothing waits for them: a needed
    Secret is applied without being read first.
    """

    def __init__(self, api: KubernetesAPI, settings: KubernetesSettings, changed: Changed) -> None:
        self._api, self._settings, self._changed = api, settings, changed
        self._followed: dict[str, tuple[Reflector, asyncio.Task[None]]] = {}

    def follow(self, namespace: str) -> None:
        """Watch the Secrets of a namespace from now on."""
        if namespace not in self._followed:
            reflector = make_reflector(self._api, self._settings, "Secret", self._changed, namespace)
            task = asyncio.create_task(reflector.run(), name=f"following Secrets of {namespace}")
            self._followed[namespace] = reflector, task

    async def settle(self) -> None:
        """Wait briefly for existing Secrets, so that unchanged ones aren't applied again; a timeout is no error."""
        waiting = [asyncio.ensure_future(reflector.synced.wait()) for reflector, _ in self._followed.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_SETTLE)
            for task in late:
                task.cancel()

    def leave(self, namespace: str) -> None:
        """Stop watching a namespace that has no workloads any more."""
        if found := self._followed.pop(namespace, None):
            found[1].cancel()

    def take(self, obj: dict[str, Any]) -> None:
        """Store a Secret that the server has just returned."""
        namespace = obj["metadata"]["namespace"]
        self.follow(namespace)
        self._followed[namespace][0].take(obj)

    async def close(self) -> None:
        """Stop watching all namespaces."""
        await cancel(*(task for _, task in self._followed.values()))


def make_reflector(
    api: KubernetesAPI, settings: KubernetesSettings, kind: str, changed: Changed, namespace: str | None = None
) -> Reflector:
    """Return a reflector of a kind of workloads' objects, in all namespaces or in one."""
    params = {"labelSelector": release_selector(settings)}

    def keep(obj: dict[str, Any]) -> dict[str, Any]:
        meta = obj["metadata"]
        kept: dict[str, Any] = _lean(_keep_object(obj, reflector.objects.get((meta["namespace"], meta["name"]))))
        return kept

    path, forgets = path_of_kind(kind, namespace), namespace is not None
    reflector = Reflector(api, path, params=params, keep=keep, changed=changed, forgets=forgets)
    return reflector


def make_reflectors(
    api: KubernetesAPI, settings: KubernetesSettings, changed: Changed, notices: Notices
) -> dict[str, Reflector]:
    """Return the reflectors of all kinds of workloads' objects except Secrets, of pods and of Events."""
    params = {"labelSelector": release_selector(settings)}
    reflectors = {kind: make_reflector(api, settings, kind, changed) for kind in FOLLOWED}
    reflectors["Pod"] = Reflector(
        api, path_of("v1", "pods"), params=params, keep=lambda pod: _lean(_keep_pod(pod)), changed=changed
    )
    reflectors["Event"] = Reflector(
        api,
        path_of("v1", "events"),
        params={"fieldSelector": "type=Warning"},
        keep=notices.keep,
        changed=notices.changed,
    )
    return reflectors
