"""What is followed in the cluster, and what is kept of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from llmos_hub.backends.kubernetes.names import digest, release_selector
from llmos_hub.backends.kubernetes.objects import KINDS
from llmos_hub.backends.kubernetes.reflector import Reflector
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.states import Notice
from llmos_hub.kubernetes_api import FIELD_MANAGER, KubernetesAPI, path_of

__all__ = ["FIELDS", "FOLLOWED", "Notices", "fields_of", "make_reflector", "make_reflectors"]

FIELDS: Final = "fields"
"""Where an object's kept form has the hash of the fields that are ours."""
FOLLOWED: Final = ("Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "Secret")
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
_MOST: Final = 5000
_PER_OBJECT: Final = 8


def _keep_metadata(obj: Mapping[str, Any]) -> dict[str, Any]:
    meta = obj["metadata"]
    return {name: meta[name] for name in _META if name in meta}


def fields_of(obj: Mapping[str, Any]) -> str:
    """A hash of the fields of an object that are ours: a field that somebody else changes is no longer."""
    return digest(
        [
            entry.get("fieldsV1")
            for entry in obj["metadata"].get("managedFields") or ()
            if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        ]
    )


def _keep_object(obj: dict[str, Any]) -> dict[str, Any]:
    """Metadata, status, and of the spec what says how many."""
    spec = obj.get("spec") or {}
    return {
        "kind": obj["kind"],
        "metadata": _keep_metadata(obj),
        "spec": {name: spec[name] for name in ("replicas", "completions") if name in spec},
        "status": obj.get("status") or {},
        FIELDS: fields_of(obj),
    }


def _keep_pod(obj: dict[str, Any]) -> dict[str, Any]:
    spec, status, meta = obj["spec"], obj.get("status") or {}, _keep_metadata(obj)
    meta["annotations"] = {
        name: value for name, value in (meta.get("annotations") or {}).items() if name == _POD_ANNOTATION
    }
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "nodeName": spec.get("nodeName", ""),
            "restartPolicy": spec.get("restartPolicy", "Always"),
            "containers": [{name: c[name] for name in _CONTAINER if name in c} for c in spec["containers"]],
        },
        "status": {name: status[name] for name in _STATUS if name in status},
    }


class Notices:
    """Events of type Warning about pods and jobs: why something isn't as it should be."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self.by_uid: OrderedDict[str, Sequence[Notice]] = OrderedDict()
        self._changed = changed

    def keep(self, obj: dict[str, Any]) -> dict[str, Any] | None:
        """Of an Event what is needed; nothing of others."""
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
        """Take in an Event; those that have expired are kept until there are too many."""
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
        """It is gone."""
        self.by_uid.pop(uid, None)


Changed = Callable[[dict[str, Any] | None, dict[str, Any] | None], None]


def make_reflector(api: KubernetesAPI, settings: KubernetesSettings, kind: str, changed: Changed) -> Reflector:
    """One for a kind that a workload consists of."""
    path = path_of(KINDS[kind].api_version, KINDS[kind].plural)
    params = {"labelSelector": release_selector(settings)}
    return Reflector(api, path, params=params, keep=_keep_object, changed=changed)


def make_reflectors(
    api: KubernetesAPI, settings: KubernetesSettings, changed: Changed, notices: Notices
) -> dict[str, Reflector]:
    """One for each kind that a workload consists of in every cluster, for pods and for Events."""
    params = {"labelSelector": release_selector(settings)}
    reflectors = {kind: make_reflector(api, settings, kind, changed) for kind in FOLLOWED}
    reflectors["Pod"] = Reflector(api, path_of("v1", "pods"), params=params, keep=_keep_pod, changed=changed)
    reflectors["Event"] = Reflector(
        api,
        path_of("v1", "events"),
        params={"fieldSelector": "type=Warning"},
        keep=notices.keep,
        changed=notices.changed,
    )
    return reflectors
