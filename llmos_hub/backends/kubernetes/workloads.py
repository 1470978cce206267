"""A workload on the cluster: its wanted and existing objects, and the calls that apply the differences."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from llmos.errors import BackendFailed, Cause, Invalid, LLMOSError
from llmos_hub.backends.kubernetes.fields import fields_of, values_wanted
from llmos_hub.backends.kubernetes.names import object_name
from llmos_hub.backends.kubernetes.objects import (
    keep_images,
    make_objects,
    make_pvc,
    needs_claim,
    path_of_kind,
    path_of_object,
)
from llmos_hub.backends.kubernetes.observation import Members, find_waiting
from llmos_hub.backends.kubernetes.quotas import Demands
from llmos_hub.backends.kubernetes.reasons import not_created
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.states import role_of
from llmos_hub.backends.kubernetes.watching import FIELDS, IMAGES, VALUES, SecretReflector
from llmos_hub.kubernetes.connection import FIELD_MANAGER, MERGE_PATCH, APIError, KubernetesAPI, path_of
from llmos_hub.kubernetes.reflector import Reflector
from llmos_hub.names import KEY_AFTER, KEY_APPLIED, KEY_LABELS, KEY_TEMPLATE
from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["Applier", "Entry"]

_REFUSED: Final = (400, 422)
_MAKE_PODS: Final = ("Deployment", "Job", "LeaderWorkerSet")
_PODS: Final = ("active", "succeeded", "failed", "terminating")
"""Numbers of pods in a Job's status: none of them before its first pod."""
_PART: Final = {"Deployment": "deployments", "Job": "jobs", "Pod": "pods"}

logger = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Made:
    """An object as it is applied; as JSON text, since it is rarely used, and text needs a quarter of the memory."""

    stamp: str
    text: bytes

    @classmethod
    def of(cls, obj: Object) -> _Made:
        return cls(obj["metadata"]["annotations"][KEY_APPLIED], json.dumps(obj, separators=(",", ":")).encode())

    def read(self) -> Object:
        found: Object = json.loads(self.text)
        return found


@dataclass(slots=True)
class Entry:
    """The state of a workload that is wanted or exists in the cluster.

    Attributes
    ----------
    wanted
        The workload as last applied by this process.
    members
        The existing objects.
    objects
        The objects applied last, by path.
    fields
        The hash of our set of fields after that, by path: a different hash means that somebody changed one.
    demands
        The resources its containers had to state when it was applied.
    waiting
        The roles whose pods aren't created before other roles are ready.
    told
        The observation that subscribers were notified of last.
    deleting
        True while it is being deleted.
    found
        Whether it may have been applied by another process, which may have left a Secret that nothing refers to.
    repairs
        Number of recent repairs.
    """

    ref: WorkloadRef
    wanted: Workload | None = None
    members: Members = field(default_factory=Members)
    objects: dict[str, _Made] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    demands: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    told: Observation | None = None
    deleting: bool = False
    found: bool = False
    repairs: int = 0
    repair: asyncio.Task[None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, obj: Object) -> None:
        """Record an existing object."""
        self._place(obj["kind"])[self._name(obj)] = obj

    def drop(self, obj: Object) -> None:
        """Record that an object was deleted."""
        self._place(obj["kind"]).pop(self._name(obj), None)

    def _place(self, kind: str) -> Any:
        return getattr(self.members, _PART.get(kind, "others"))

    @staticmethod
    def _name(obj: Object) -> str:
        return str(obj["metadata"]["name"]) if obj["kind"] in _PART else path_of_object(obj)

    def live(self, path: str) -> Object | None:
        """Return the existing object at a path; None if it doesn't exist."""
        return next((obj for obj in self.everything() if path_of_object(obj) == path), None)

    def everything(self) -> Iterable[Object]:
        """Return all objects except pods."""
        members = self.members
        return [*members.deployments.values(), *members.jobs.values(), *members.others.values()]  # type: ignore[list-item]

    def drifted(self, path: str) -> bool:
        """Return whether the object at a path differs from the applied one: changed or deleted by somebody."""
        live = self.live(path)
        if live is None:
            return True
        annotations = live["metadata"].get("annotations") or {}
        if annotations.get(KEY_APPLIED) != self.objects[path].stamp:
            return True
        if live["kind"] == "Job":
            return False
        if path not in self.fields and live[VALUES] == values_wanted(self.objects[path].read()):
            self.fields[path] = live[FIELDS]  # applied by an earlier process
        return bool(live[FIELDS] != self.fields.get(path))

    def forget(self) -> None:
        """Drop the wanted state: another process decides."""
        self.wanted = None
        self.objects.clear()
        self.fields.clear()


class Applier:
    """A client that applies the objects of workloads to the cluster.

    Parameters
    ----------
    api
        The connection to the cluster.
    settings
        The settings of the objects to create.
    reflectors
        The local copies of objects, by kind.
    secrets
        The local copies of Secrets.
    demands
        The resources that containers must state, by namespace.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        settings: KubernetesSettings,
        reflectors: dict[str, Reflector],
        secrets: SecretReflector,
        demands: Demands,
    ) -> None:
        self._api = api
        self._settings = settings
        self._reflectors = reflectors
        self._secrets = secrets
        self._demands = demands
        self._claims: set[str] = set()

    async def apply(self, entry: Entry, workload: Workload) -> None:
        """Apply objects that differ, and delete those that are no longer part of the workload.

        Raises
        ------
        Invalid
            The cluster refuses an object as invalid.
        BackendFailed
            The cluster refuses for another reason.
        Unavailable
            The cluster doesn't answer.
        """
        demands = self._demands.of(workload.ref.namespace)
        waiting = frozenset(find_waiting(workload, entry.members))
        if (workload, demands, waiting) != (entry.wanted, entry.demands, entry.waiting) or not entry.objects:
            made = {
                path_of_object(obj): obj
                for obj in make_objects(workload, self._settings, demands)
                if obj["kind"] not in _MAKE_PODS or role_of(obj) not in waiting
            }
            entry.demands, entry.waiting = demands, waiting
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
        """Apply again the objects that somebody changed or deleted, and return their paths."""
        paths = [path for path in entry.objects if entry.drifted(path)]
        for path in paths:
            await self._apply(entry, path, entry.objects[path].read())
        return paths

    @staticmethod
    def _may_go(entry: Entry, obj: Object) -> bool:
        """Return whether an object may be deleted now."""
        if obj["metadata"].get("deletionTimestamp"):
            return False
        # a Secret is needed as long as pods of an older template run
        return obj["kind"] != "Secret" or (entry.told is not None and entry.told.updated)

    async def _apply(self, entry: Entry, path: str, obj: Object) -> None:
        live = entry.live(path)
        if obj["kind"] == "Job" and live is not None and not any(live["status"].get(name) for name in _PODS):
            # it may have no pods because its template, which is immutable, doesn't state what a quota demands
            if not live["metadata"].get("deletionTimestamp"):
                await self.remove(live)
            return  # it is made again once it is gone
        try:
            if obj["kind"] == "Job" and live is not None:
                # a Job's template is immutable, and its hash is in the name; only the annotations can differ
                annotations = obj["metadata"]["annotations"]
                kept = (KEY_LABELS, KEY_AFTER, KEY_APPLIED)
                ours = {name: annotations[name] for name in kept if name in annotations}
                patch = {"metadata": {"annotations": ours}}
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
        """Create the namespace's claim for model files, if it doesn't exist; an existing one is never changed."""
        namespace = workload.ref.namespace
        if namespace in self._claims:
            return
        claim = make_pvc(namespace, self._settings)
        try:
            await self._api.request("POST", path_of_kind("PersistentVolumeClaim", namespace), body=claim)
        except APIError as error:
            if error.status != 409:
                raise _refusal(workload.ref, claim, error) from None
        self._claims.add(namespace)

    async def remove(self, obj: Object) -> None:
        """Delete an object; of an owner of pods first the pods, so that they are gone when it is."""
        policy = "Foreground" if obj["kind"] in _MAKE_PODS else "Background"  # Foreground is more expensive
        body = {"propagationPolicy": policy, "preconditions": {"uid": obj["metadata"]["uid"]}}
        try:
            await self._api.request("DELETE", path_of_object(obj), body=body)
        except APIError as error:
            if error.status not in (404, 409):
                raise BackendFailed(f"{obj['metadata']['name']} can't be deleted: {error.message}") from None

    async def take_down(self, entry: Entry) -> bool:
        """Delete the objects of a workload, and return True if that was all.

        A role that others were started after is kept until their pods are gone, and with it what has no pods.
        """
        objects = list(entry.everything())
        needed = _find_needed(objects)
        for obj in objects:
            keep = needed and (obj["kind"] not in _MAKE_PODS or role_of(obj) in needed)
            if not keep and not obj["metadata"].get("deletionTimestamp"):
                await self.remove(obj)
        if needed:
            return False
        if entry.found and not any(obj["kind"] == "Secret" for obj in entry.everything()):
            await self._remove_unknown_secret(entry.ref)
            entry.found = False
        return True

    async def _remove_unknown_secret(self, ref: WorkloadRef) -> None:
        """Delete a workload's Secret by name: in namespaces where no workload uses one, they aren't watched."""
        try:
            await self._api.request("DELETE", path_of_kind("Secret", ref.namespace, object_name(ref)))
        except APIError as error:
            if error.status not in (403, 404):
                raise BackendFailed(f"The Secret of {ref.name} can't be deleted: {error.message}") from None

    async def force(self, pod: Any) -> None:
        """Delete a pod by force whose node is lost, so that nothing waits for it."""
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        try:
            await self._api.request("DELETE", path_of("v1", "pods", meta["namespace"], meta["name"]), body=body)
        except (APIError, LLMOSError) as error:
            logger.warning("%s/%s can't be removed: %s", meta["namespace"], meta["name"], error)


def _find_needed(objects: Iterable[Object]) -> set[str]:
    """Return the roles that existing others were started after; none if each needs another, which is a mistake."""
    makers = [obj for obj in objects if obj["kind"] in _MAKE_PODS]
    after = [(obj["metadata"].get("annotations") or {}).get(KEY_AFTER, "") for obj in makers]
    needed = {role for text in after for role in text.split(",")} & {role_of(obj) for obj in makers}
    return needed if any(role_of(obj) not in needed for obj in makers) else set()


def _undisturbed(obj: Object, live: Object | None) -> Object:
    """Return the object with its pods' current images, if they are ready and the template differs only in images.

    An upgrade of the platform would otherwise replace every model: running answers would be cut off, and if
    all GPUs are in use the new pod would wait for the old one's. A workload that is started again gets the new images.
    """
    if obj["kind"] != "Deployment" or live is None or not live["status"].get("readyReplicas"):
        return obj
    same = live["metadata"].get("labels", {}).get(KEY_TEMPLATE) == obj["metadata"]["labels"][KEY_TEMPLATE]
    return keep_images(obj, live[IMAGES]) if same else obj


def _refusal(ref: WorkloadRef, obj: Object, error: APIError) -> LLMOSError:
    """Return the error for an object that the cluster refuses."""
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
