"""The ModelService reconciler: fetch the model, serve it, report its status.

Nothing here waits for a process: jobs and replicas run in the backend, whose changes trigger another reconcile.
All state that must persist is in the resource's status or in the backend, so that another
controller process can continue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from llmos.errors import Internal, Invalid, LLMOSError, NotFound, NotReady, Unavailable
from llmos.resources import Credential, ModelService, Volume
from llmos.resources.base import utcnow
from llmos.resources.modelservice import ModelServiceSpec, ModelServiceStatus
from llmos.resources.modeluri import volume_of
from llmos_hub.controllers.modelservice import events
from llmos_hub.controllers.modelservice.downloads import Downloads
from llmos_hub.controllers.modelservice.status import Choice, Facts, deleting, make_status, settle
from llmos_hub.controllers.modelservice.workloads import (
    FETCH,
    SERVE,
    fetch_environment,
    make_ref,
    make_serve,
    model_mounts,
)
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.controllers.teardown import Teardown
from llmos_hub.engine_keys import engine_key
from llmos_hub.engines.base import Engine, Machine
from llmos_hub.engines.memory import check_limit
from llmos_hub.engines.registry import choose
from llmos_hub.sources.base import ModelFiles
from llmos_hub.stores.informer import Key, key_of
from llmos_hub.volumes.base import VolumeRef
from llmos_hub.workload import Mount, Observation, Workload, WorkloadRef

__all__ = ["Choose", "ModelServiceReconciler"]

Choose = Callable[[ModelServiceSpec, ModelFiles | None, Machine], tuple[Engine, str]]
"""A function that chooses an engine and gives the reason; see `llmos_hub.engines.registry.choose`."""

_PROGRESS = 0.5
"""Seconds between checks of a download: frequent enough for people, rare enough for the database."""
_MEMORY = 10.0
"""Seconds between status writes that change only memory usage."""

_CREDENTIAL = 10.0
"""Seconds between checks of a Credential in a cluster, where no process may watch all Secrets."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    """A cache for a resource between reconciles, only to save work."""

    uid: str | None
    written: float = -_MEMORY
    planned: tuple[object, Choice] | None = None
    """The last plan, after the inputs it was made for."""


@dataclass(slots=True)
class _Found:
    """The result of bringing the workloads up to date: the facts, and events that don't follow from the status."""

    facts: Facts
    told: list[events.Happening] = field(default_factory=list)


class ModelServiceReconciler:
    """A reconciler of ModelServices.

    Parameters
    ----------
    parts
        The parts of the process.
    choose
        Chooses an engine.
    clock
        Returns the current time.
    """

    kind = ModelService

    def __init__(self, parts: Dependencies, *, choose: Choose = choose, clock: Callable[[], datetime] = utcnow) -> None:
        self._store, self._backend, self._workloads = parts.store, parts.backend, parts.workloads
        self._volumes = parts.volumes
        self._choose = choose
        self._clock = clock
        self._environment = fetch_environment(parts.environ)
        self._engine_secret = parts.engine_secret
        self._downloads = Downloads(parts.backend, parts.workloads.layout, self._environment)
        self._teardown = Teardown(parts.backend, lambda ref: parts.requeue((ref.namespace, ref.name)))
        self._seen: dict[Key, _Seen] = {}

    async def reconcile(self, resource: ModelService) -> Result[ModelService]:
        """Reconcile one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        service = resource
        key = key_of(service)
        seen = self._seen.get(key)
        if seen is None or seen.uid != service.metadata.uid:
            await self._take_down(key, but=service.metadata.uid)
            self._seen[key] = _Seen(service.metadata.uid)
        if service.metadata.deletion_timestamp is not None:
            return await self._delete(service)
        if service.unread:
            return await self._leave(service)
        if ModelService.finalizer not in service.metadata.finalizers:
            finalizers = [*service.metadata.finalizers, ModelService.finalizer]
            meta = service.metadata.model_copy(update={"finalizers": finalizers})
            service = await self._store.update(service.model_copy(update={"metadata": meta}))
        if service.wanted_replicas == 0:
            return await self._pause(service)
        found = await self._look(service)
        return await self._report(service, found)

    async def _leave(self, service: ModelService) -> Result[ModelService]:
        """Report why its spec can't be applied, and leave its workloads running."""
        facts = await self._facts(make_ref(service, SERVE))
        try:
            return await self._report(service, _Found(replace(facts, refusal=Invalid(service.unread))))
        except Internal as error:  # too damaged to write even a status
            logger.warning("%s", error.message)
            return Result()

    async def gone(self, key: Key) -> None:
        """Stop all workloads of a resource that no longer exists.

        The store is read once more: a resource that can't be read at all isn't listed, but its workloads
        keep running.
        """
        self._seen.pop(key, None)
        try:
            there = await self._store.get(ModelService, *key)
        except NotFound:
            await self._take_down(key, but=None)
        else:
            await self._take_down(key, but=there.metadata.uid)

    async def close(self) -> None:
        """Stop waiting for deletions; unfinished ones are found again at the next start."""
        await self._teardown.close()

    # Current and wanted state

    async def _facts(self, ref: WorkloadRef) -> Facts:
        return Facts(
            self._clock(), observation=await self._backend.observe(ref), selector=self._workloads.selector(ref)
        )

    async def _look(self, service: ModelService) -> _Found:
        """Bring the workloads in line with the spec, as far as possible now."""
        ref, fetch = make_ref(service, SERVE), make_ref(service, FETCH)
        facts = await self._facts(ref)
        if self._teardown.busy(ref) or self._teardown.busy(fetch):
            return _Found(facts)  # reconciled again when that has ended
        try:
            if service.spec.resources.memory:  # before the download, which may take an hour
                check_limit(service.spec, self._workloads.machine(service.spec.resources))
        except LLMOSError as refusal:
            return _Found(replace(facts, refusal=refusal))
        try:
            secrets = await self._secrets(service)
        except Invalid as refusal:
            return _Found(replace(facts, refusal=refusal))
        try:
            mounts = await self._mounts(service)
        except (Invalid, NotReady) as refusal:
            return _Found(replace(facts, refusal=refusal))
        files = None
        if service.spec.model is not None:
            download = await self._downloads.look(service, secrets, facts.now, mounts)
            facts = replace(facts, download=download)
            if download.files is None:
                return _Found(facts)
            files = download.files
        elif await self._backend.observe(fetch) is not None:
            self._drop(fetch)  # left over from when the spec had a model
        try:
            choice = await self._planned(service, files)
            workload = make_serve(
                service,
                choice.plan,
                secrets,
                layout=self._workloads.layout,
                engine=choice.engine,
                environment=self._environment,
                key=engine_key(self._engine_secret, service.metadata.uid or ""),
                mounts=mounts,
            )
        except LLMOSError as refusal:
            return _Found(replace(facts, refusal=refusal))
        return await self._serve(replace(facts, choice=choice), workload)

    async def _serve(self, facts: Facts, workload: Workload) -> _Found:
        role = workload.roles[0]
        told = events.scaled(facts.observation.labels if facts.observation else {}, role.count)
        try:
            await self._backend.apply(workload)
        except Invalid as error:  # the cluster refuses the objects made from the spec
            return _Found(replace(facts, refusal=error))
        observation = await self._backend.observe(workload.ref)
        return _Found(replace(facts, template=role.template.hash, observation=observation), told)

    async def _planned(self, service: ModelService, files: ModelFiles | None) -> Choice:
        """Return the plan, from the cache if none of its inputs changed."""
        machine, seen = self._workloads.machine(service.spec.resources), self._seen[key_of(service)]
        about = (service.metadata.uid, service.metadata.generation, files, machine)
        if seen.planned is None or seen.planned[0] != about:
            # in a thread: an engine may have to run its program to find out what it supports
            seen.planned = (about, await asyncio.to_thread(self._plan, service, files, machine))
        return seen.planned[1]

    def _plan(self, service: ModelService, files: ModelFiles | None, machine: Machine) -> Choice:
        engine, reason = self._choose(service.spec, files, machine)
        return Choice(engine.name, engine.title, reason, engine.plan(service.engine_spec, files, machine))

    async def _secrets(self, service: ModelService) -> Mapping[str, str]:
        name, namespace = service.spec.credential_ref, service.metadata.namespace
        if name is None:
            return {}
        try:
            credential = await self._store.get(Credential, namespace, name)
        except NotFound:
            raise Invalid(
                f'spec.credentialRef: there is no Credential "{name}" in {namespace}. It continues once there is one.'
            ) from None
        if credential.unread:
            raise Invalid(f"spec.credentialRef: the Credential {name} can't be read: {credential.unread}.")
        return credential.spec.data

    async def _mounts(self, service: ModelService) -> Mapping[str, Mount]:
        """Return the volume that the model is in, if it is in one."""
        place, namespace = volume_of(service.spec.model), service.metadata.namespace
        if place is None:
            return {}
        name = place[0]
        try:
            volume = await self._store.get(Volume, namespace, name)
        except NotFound:
            raise Invalid(
                f'spec.model: there is no Volume "{name}" in {namespace}. It continues once there is one.'
            ) from None
        meta = volume.metadata
        if volume.rests_until is not None or meta.deletion_timestamp is not None:
            undo = Volume.undo.format(name=name)
            raise Invalid(f"spec.model: the Volume {name} was deleted. To have it again: llmos {undo}")
        if volume.status.phase == "Failed":
            raise NotReady(f"The Volume {name} failed: {volume.status.message}")
        if volume.status.capacity is None:
            raise Unavailable(f"The Volume {name} is being made.")
        source = self._volumes.source(VolumeRef(namespace or "", name, meta.uid or ""))
        return model_mounts(volume, source)

    # Ending workloads

    async def _pause(self, service: ModelService) -> Result[ModelService]:
        """Stop all processes, after their endpoints were removed from the status."""
        ref, fetch = make_ref(service, SERVE), make_ref(service, FETCH)
        result = await self._report(service, _Found(await self._facts(ref)))
        await self._drain(ref)
        job = await self._backend.observe(fetch)
        if job is not None and any(replica.phase != "Succeeded" for replica in job.replicas):
            self._drop(fetch)  # a finished job is kept, so that it needn't run again
        return result

    async def _delete(self, service: ModelService) -> Result[ModelService]:
        """End everything: first the endpoints, then the workloads, at last the finalizer."""
        if ModelService.finalizer not in service.metadata.finalizers:
            return Result()
        ref, fetch = make_ref(service, SERVE), make_ref(service, FETCH)
        seen = await self._backend.observe(ref)
        replicas = len(seen.replicas) if seen is not None else 0
        service = await self._write(service, deleting(service, replicas), None)
        left = [part for part in (ref, fetch) if await self._backend.observe(part) is not None]
        for part in left:
            if part != ref or not await self._drain(ref):
                self._drop(part)
        if left or self._teardown.busy(ref) or self._teardown.busy(fetch):
            return Result(resource=service)  # reconciled again when each of them has ended
        finalizers = [name for name in service.metadata.finalizers if name != ModelService.finalizer]
        meta = service.metadata.model_copy(update={"finalizers": finalizers})
        return Result(resource=await self._store.update(service.model_copy(update={"metadata": meta})))

    async def _drain(self, ref: WorkloadRef) -> bool:
        """Scale to zero, so that processes finish their requests; return False if none are left to drain."""
        seen = await self._backend.observe(ref)
        if seen is None or not seen.replicas or self._teardown.busy(ref):
            return False
        await self._backend.apply(Workload(ref, ()))
        return True

    async def _take_down(self, key: Key, *, but: str | None) -> None:
        """Stop the workloads of earlier resources with this name, other than the one with the uid `but`."""
        namespace, name = key
        for ref in await self._backend.refs():
            if (ref.name, ref.namespace) != (name, namespace):  # the cheap comparison first: it runs often
                continue
            if ref.kind == ModelService.kind_name() and ref.uid != but:
                logger.info("%s/%s: its resource is gone, stopping its %s processes", ref.namespace, ref.name, ref.part)
                self._drop(ref)

    def _drop(self, ref: WorkloadRef) -> None:
        self._downloads.forget(ref)
        self._teardown.begin(ref)

    # Reporting

    async def _report(self, service: ModelService, found: _Found) -> Result[ModelService]:
        status = make_status(service, found.facts)
        after = _when_to_look(found.facts)
        if self._workloads.layout.per_namespace and service.spec.credential_ref is not None:
            after = min(after or _CREDENTIAL, _CREDENTIAL)
        changed, more = settle(service.status, status)
        seen = self._seen[key_of(service)]
        loop_time = asyncio.get_running_loop().time()
        if changed and not more and (wait := seen.written + _MEMORY - loop_time) > 0:
            after = min(after, wait) if after is not None else wait
        elif changed:
            seen.written = loop_time
            service = await self._write(service, status, found.facts.observation)
        await self._tell(service, found.told)
        return Result(after, service)

    async def _write(
        self, service: ModelService, status: ModelServiceStatus, observation: Observation | None
    ) -> ModelService:
        """Write a changed status, then record the events; in this order, so that no event is recorded twice."""
        if status == service.status:
            return service
        told = events.compare(service, status, observation)
        written = await self._store.patch_status(service.model_copy(update={"status": status}))
        await self._tell(written, told)
        return written

    async def _tell(self, service: ModelService, happenings: Iterable[events.Happening]) -> None:
        for happening in happenings:
            await self._store.record(service, happening.type, happening.reason, happening.message)


def _when_to_look(facts: Facts) -> float | None:
    """Return the seconds until a change that triggers no reconcile by itself; None if there is none."""
    download = facts.download
    if download is None:
        return None
    if download.state == "Running":
        return _PROGRESS
    if download.state == "Failed" and download.retry_at is not None:
        return max(0.1, (download.retry_at - facts.now).total_seconds())
    return None
