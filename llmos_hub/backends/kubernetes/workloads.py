"""One workload on the cluster: what is wanted of it, what there is, and how the one is brought to the other."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from llmos.errors import BackendFailed, Cause, Invalid, LLMOSError
from llmos_hub.backends.kubernetes.fields import fields_of, values_wanted
from llmos_hub.backends.kubernetes.names import APPLIED, LABELS, TEMPLATE
from llmos_hub.backends.kubernetes.objects import (
    KINDS,
    keep_images,
    make_objects,
    make_pvc,
    needs_claim,
    path_of_object,
)
from llmos_hub.backends.kubernetes.observation import Members
from llmos_hub.backends.kubernetes.quotas import Demands
from llmos_hub.backends.kubernetes.reasons import not_created
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.watching import FIELDS, IMAGES, VALUES, SecretReflector
from llmos_hub.kubernetes_api import FIELD_MANAGER, MERGE_PATCH, APIError, KubernetesAPI, path_of
from llmos_hub.kubernetes_reflector import Reflector
from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["Applier", "Entry"]

_REFUSED: Final = (400, 422)
_MAKE_PODS: Final = ("Deployment", "Job", "LeaderWorkerSet")
_PART: Final = {"Deployment": "deployments", "Job": "jobs", "Pod": "pods"}

logger = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Made:
    """An object as it is applied; as text, a quarter of its size, since it is seldom needed."""

    stamp: str
    text: bytes

    @classmethod
    def of(cls, obj: Object) -> _Made:
        return cls(obj["metadata"]["annotations"][APPLIED], json.dumps(obj, separators=(",", ":")).encode())

    def read(self) -> Object:
        found: Object = json.loads(self.text)
        return found


@dataclass(slots=True)
class Entry:
    """A workload, wanted or found.

    Attributes
    ----------
    wanted
        As it was last applied by this process.
    members
        What there is.
    objects
        What was applied last, by path.
    fields
        The hash of the fields that were ours after that, by path: another means that somebody changed one.
    demands
        What its containers had to state then.
    told
        The observation that was told last.
    deleting
        Whether it is being taken down.
    repairs
        How often it was repaired lately.
    """

    ref: WorkloadRef
    wanted: Workload | None = None
    members: Members = field(default_factory=Members)
    objects: dict[str, _Made] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    demands: frozenset[str] = frozenset()
    told: Observation | None = None
    deleting: bool = False
    repairs: int = 0
    repair: asyncio.Task[None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, obj: Object) -> None:
        """Note an object that is there now."""
        self._place(obj["kind"])[self._name(obj)] = obj

    def drop(self, obj: Object) -> None:
        """Note that an object is gone."""
        self._place(obj["kind"]).pop(self._name(obj), None)

    def _place(self, kind: str) -> Any:
        return getattr(self.members, _PART.get(kind, "others"))

    @staticmethod
    def _name(obj: Object) -> str:
        return str(obj["metadata"]["name"]) if obj["kind"] in _PART else path_of_object(obj)

    def live(self, path: str) -> Object | None:
        """What there is at a path."""
        return next((obj for obj in self.everything() if path_of_object(obj) == path), None)

    def everything(self) -> Iterable[Object]:
        """All objects but pods."""
        members = self.members
        return [*members.deployments.values(), *members.jobs.values(), *members.others.values()]  # type: ignore[list-item]

    def drifted(self, path: str) -> bool:
        """Whether what there is at a path differs from what was applied: changed or removed by somebody."""
        live = self.live(path)
        if live is None:
            return True
        annotations = live["metadata"].get("annotations") or {}
        if annotations.get(APPLIED) != self.objects[path].stamp:
            return True
        if live["kind"] == "Job":
            return False
        if path not in self.fields and live[VALUES] == values_wanted(self.objects[path].read()):
            self.fields[path] = live[FIELDS]  # applied by an earlier process
        return bool(live[FIELDS] != self.fields.get(path))

    def forget(self) -> None:
        """Want nothing any more: another process decides."""
        self.wanted = None
        self.objects.clear()
        self.fields.clear()


class Applier:
    """Makes the cluster's objects what a workload wants them to be.

    Parameters
    ----------
    api
        The connection.
    settings
        How workloads become objects.
    reflectors
        The local copies, by kind.
    secrets
        That of Secrets.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        settings: KubernetesSettings,
        reflectors: dict[str, Reflector],
        secrets: SecretReflector,
    ) -> None:
        self._api = api
        self._settings = settings
        self._reflectors = reflectors
        self._secrets = secrets
        self._demands = Demands(api)
        self._claims: set[str] = set()

    async def apply(self, entry: Entry, workload: Workload) -> None:
        """Apply what differs, and remove what is no longer part of it.

        Raises
        ------
        Invalid
            The cluster refuses an object as wrong.
        BackendFailed
            It refuses for another reason.
        Unavailable
            It doesn't answer.
        """
        demands = await self._demands.of(workload.ref.namespace)
        if workload != entry.wanted or not entry.objects or demands != entry.demands:
            made = {path_of_object(obj): obj for obj in make_objects(workload, self._settings, demands)}
            entry.demands = demands
            entry.objects = {path: _Made.of(_undisturbed(obj, entry.live(path))) for path, obj in made.items()}
            entry.wanted = workload
        objects = entry.objects
        if needs_claim(workload, self._settings):
            await self._claim(workload)
        for path, made_one in objects.items():
            if entry.drifted(path):
                await self._apply(entry, path, made_one.read())
        for obj in list(entry.everything()):
            if path_of_object(obj) not in objects and self._may_go(entry, obj):
                await self.remove(obj)

    async def repair(self, entry: Entry) -> list[str]:
        """Apply again what somebody has changed or removed; the paths."""
        paths = [path for path in entry.objects if entry.drifted(path)]
        for path in paths:
            await self._apply(entry, path, entry.objects[path].read())
        return paths

    @staticmethod
    def _may_go(entry: Entry, obj: Object) -> bool:
        """A Secret is needed as long as pods of an older template run."""
        if obj["metadata"].get("deletionTimestamp"):
            return False
        return obj["kind"] != "Secret" or (entry.told is not None and entry.told.updated)

    async def _apply(self, entry: Entry, path: str, obj: Object) -> None:
        live = entry.live(path)
        try:
            if obj["kind"] == "Job" and live is not None:
                # what it runs can't be changed, and is what its name says; this is the rest
                annotations = obj["metadata"]["annotations"]
                patch = {"metadata": {"annotations": {name: annotations[name] for name in (LABELS, APPLIED)}}}
                answer = await self._api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)
            else:
                answer = await self._api.apply(obj, path, manager=FIELD_MANAGER)
        except APIError as error:
            raise _refusal(entry.ref, obj, error) from None
        copy = self._secrets if obj["kind"] == "Secret" else self._reflectors.get(obj["kind"])
        if copy is None:
            return
        entry.fields[path] = fields_of(answer)
        copy.take(answer)

    async def _claim(self, workload: Workload) -> None:
        """The namespace's claim for model files: made once; what it is then is its owner's business."""
        namespace = workload.ref.namespace
        if namespace in self._claims:
            return
        claim = make_pvc(namespace, self._settings)
        kind = KINDS["PersistentVolumeClaim"]
        try:
            await self._api.request("POST", path_of(kind.api_version, kind.plural, namespace), body=claim)
        except APIError as error:
            if error.status != 409:
                raise _refusal(workload.ref, claim, error) from None
        self._claims.add(namespace)

    async def remove(self, obj: Object) -> None:
        """Have an object deleted; of what makes pods these first, so that they are gone when it is."""
        policy = "Foreground" if obj["kind"] in _MAKE_PODS else "Background"  # the first costs more than it seems
        body = {"propagationPolicy": policy, "preconditions": {"uid": obj["metadata"]["uid"]}}
        try:
            await self._api.request("DELETE", path_of_object(obj), body=body)
        except APIError as error:
            if error.status not in (404, 409):
                message = f"{obj['metadata']['name']} can't be deleted: {error.message}"
                raise BackendFailed(message) from None

    async def take_down(self, entry: Entry) -> None:
        """Have everything of it deleted."""
        for obj in list(entry.everything()):
            if not obj["metadata"].get("deletionTimestamp"):
                await self.remove(obj)

    async def force(self, pod: Any) -> None:
        """Forget a pod whose machine is lost, so that nobody waits for it."""
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        try:
            await self._api.request("DELETE", path_of("v1", "pods", meta["namespace"], meta["name"]), body=body)
        except (APIError, LLMOSError) as error:
            logger.warning("%s/%s can't be removed: %s", meta["namespace"], meta["name"], error)


def _undisturbed(obj: Object, live: Object | None) -> Object:
    """The object with the images that its pods run from, where those run and nothing but the images would be new.

    An upgrade of the platform would otherwise replace every model: answers under way would be cut off, and where
    all GPUs are in use the new pod would wait for the old one's. What is started anew gets the new images.
    """
    if obj["kind"] != "Deployment" or live is None or not live["status"].get("readyReplicas"):
        return obj
    same = live["metadata"].get("labels", {}).get(TEMPLATE) == obj["metadata"]["labels"][TEMPLATE]
    return keep_images(obj, live[IMAGES]) if same else obj


def _refusal(ref: WorkloadRef, obj: Object, error: APIError) -> LLMOSError:
    """Why the cluster won't have an object."""
    what = f"{obj['kind']} {obj['metadata']['name']}"
    if error.status in _REFUSED:
        causes = [Cause(f"spec.template ({cause.field})", cause.message) for cause in error.causes]
        return Invalid(f"{ref.name} can't be started: the cluster refuses its {what}: {error.message}", causes=causes)
    if error.status == 404:
        if obj["kind"] == "LeaderWorkerSet":
            return BackendFailed(
                f"{ref.name} spans several machines, for which the cluster needs LeaderWorkerSet (lws.sigs.k8s.io)."
            )
        return BackendFailed(
            f"{ref.name} can't be started: there is no namespace {ref.namespace} in the cluster (yet)."
        )
    if error.status == 403:
        failure = not_created(ref.name, error.message)
        return BackendFailed(failure.message)
    return BackendFailed(f"{ref.name} can't be started: the cluster refuses its {what}: {error.message}")
