"""The backend for a cluster: keeps track of its objects and applies workloads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from llmos.errors import BackendFailed, LLMOSError, NotFound, Unsupported
from llmos_hub.backends.base import Report
from llmos_hub.backends.changes import Changes, Subscription
from llmos_hub.backends.kubernetes.logs import read_logs
from llmos_hub.backends.kubernetes.names import ref_of
from llmos_hub.backends.kubernetes.objects import KINDS, path_of_object
from llmos_hub.backends.kubernetes.observation import PodFacts, find_waiting, make_observation
from llmos_hub.backends.kubernetes.polling import Polls
from llmos_hub.backends.kubernetes.quotas import Demands
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.watching import (
    USES_SECRET,
    Notices,
    SecretReflector,
    make_reflector,
    make_reflectors,
)
from llmos_hub.backends.kubernetes.workloads import Applier, Entry
from llmos_hub.backends.reports import REPORT_LINES, read_report
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.tasks import cancel
from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["KubernetesBackend"]

_EXTENSION: Final = "LeaderWorkerSet"
_SYNC: Final = 60.0
"""Maximum seconds for the first lists."""
_REPAIR_FIRST, _REPAIR_LONGEST = 0.2, 60.0
"""First and longest delay in seconds before a change by others is reverted; it grows if the changes are repeated."""
_REPAIR_CALM: Final = 300.0
"""Seconds without a repair after which the delay shrinks again."""
_LOST: Final = 60.0
"""Seconds beyond its termination time after which a pod is deleted by force: its node is lost."""
_LOOK: Final = 10.0
"""Seconds between checks for such pods."""
_RETRY: Final = 5.0
_STEP: Final = 0.2
"""Seconds between checks whether the pods of a role are gone, so that the roles they needed can be deleted."""

logger = logging.getLogger(__name__)

Object = dict[str, Any]


class KubernetesBackend:
    """A `Backend` whose roles are Deployments and Jobs, which keep running without this object.

    Parameters
    ----------
    api
        The connection to the cluster; the caller closes it.
    settings
        The settings of the objects to create.
    leads
        Returns whether this process may repair objects; a standby process doesn't.
    """

    def __init__(
        self, api: KubernetesAPI, settings: KubernetesSettings, *, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._api = api
        self._settings = settings
        self._leads = leads
        self._changes = Changes()
        self._entries: dict[WorkloadRef, Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._notices = Notices(self._noticed)
        self._reflectors = make_reflectors(api, settings, self._changed, self._notices)
        self._secrets = SecretReflector(api, settings, self._changed)
        demands = Demands(api, self._demanded)
        self._reflectors |= demands.reflectors
        self._applier = Applier(api, settings, self._reflectors, self._secrets, demands)
        self._polls = Polls(api, settings, self._reflectors["Pod"].objects, self._polled)

    # Start and end

    async def start(self) -> None:
        """Read the existing objects and watch them; they keep running unchanged.

        Raises
        ------
        BackendFailed
            The cluster's objects can't be listed in time.
        Unavailable
            The cluster doesn't answer.
        """
        if await self._has_extension():
            self._reflectors[_EXTENSION] = make_reflector(self._api, self._settings, _EXTENSION, self._changed)
        for kind, reflector in self._reflectors.items():
            self._spawn(reflector.run(), f"following {kind}")
        try:
            async with asyncio.timeout(_SYNC):
                for reflector in self._reflectors.values():
                    await reflector.synced.wait()
        except TimeoutError:
            late = ", ".join(kind for kind, reflector in self._reflectors.items() if not reflector.synced.is_set())
            await self.close()
            raise BackendFailed(
                f"The cluster's objects ({late}) can't be listed; the log says why. Does the controller's service account have its role?"
            ) from None
        await self._secrets.settle()
        self._spawn(self._polls.run(), "memory and progress of pods")
        self._spawn(self._look_for_lost(), "pods of lost machines")

    async def _has_extension(self) -> bool:
        """Return whether the cluster supports replicas that span several nodes (LeaderWorkerSet)."""
        version, _ = KINDS[_EXTENSION]
        try:
            await self._api.request("GET", f"/apis/{version}", timeout=_SYNC)
        except APIError:
            return False
        return True

    async def close(self, *, stop: bool = False) -> None:
        """Stop watching; workloads keep running, unless `stop`, which deletes them."""
        if stop:
            await asyncio.gather(*(self.delete(ref) for ref in await self.refs()))
        for entry in self._entries.values():
            if entry.repair is not None:
                entry.repair.cancel()
        await cancel(*self._tasks)
        await self._secrets.close()
        self._changes.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The interface for reconcilers

    async def apply(self, workload: Workload) -> None:
        """Apply a workload, without waiting for pods; see `Backend.apply`.

        Raises
        ------
        Unsupported
            The workload is for an operator.
        Invalid
            The cluster refuses an object as invalid; the error names ``spec.template``.
        BackendFailed
            The cluster refuses for another reason, such as a quota or a missing right.
        Unavailable
            The cluster doesn't answer.
        """
        if workload.operator:
            raise Unsupported(
                f"{workload.ref.name} can't be run by the {workload.operator} operator: LLMOS doesn't support it yet."
            )
        entry = self._entries.get(workload.ref)
        while entry is not None and entry.deleting:
            await entry.gone.wait()
            entry = self._entries.get(workload.ref)
        entry = entry or self._entries.setdefault(workload.ref, Entry(workload.ref))
        async with entry.lock:
            await self._applier.apply(entry, workload)
        self._look_at_all(entry)

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        """Return the current observation, from the last known objects."""
        entry = self._entries.get(ref)
        if entry is None:
            return None
        # `told` is current: each change of an object updates it
        return entry.told or self._observe(entry)

    async def refs(self) -> Sequence[WorkloadRef]:
        """Return all workloads."""
        return tuple(self._entries)

    async def logs(
        self, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield the lines of the pods' logs; see `Backend.logs`. Other processes can use `read_logs`."""
        if ref not in self._entries:
            raise NotFound(f"There is no log of {ref.name}.")

        async def exists() -> bool:
            return ref in self._entries

        lines = read_logs(self._api, ref, replica=replica, tail=tail, follow=follow, exists=exists)
        async with contextlib.aclosing(lines) as stream:
            async for line in stream:
                yield line

    async def progress(self, ref: WorkloadRef, *, replica: str | None = None) -> Report:
        """Return what a workload's job has reported; see `Backend.progress`."""
        return await read_report(self.logs(ref, replica=replica, tail=REPORT_LINES))

    async def delete(self, ref: WorkloadRef) -> None:
        """Delete all objects of a workload, and wait until its pods are gone."""
        entry = self._entries.get(ref)
        if entry is None:
            return
        entry.deleting, all_told = True, True
        async with entry.lock:
            entry.objects.clear()
            if entry.members:
                all_told = await self._applier.take_down(entry)
        entry.wanted = None
        self._changed_members(entry)
        while not entry.gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY if all_told else _STEP):
                    await entry.gone.wait()
                    return
            all_told = await self._applier.take_down(entry)  # roles that were needed, objects that appeared meanwhile

    def changes(self) -> Subscription:
        """Return the workloads whose observation changes, from this call on."""
        return self._changes.subscribe()

    # Changes in the cluster

    def _changed(self, old: Object | None, new: Object | None) -> None:
        """Record that an object was added, changed or deleted."""
        before = ref_of(old["metadata"]) if old is not None else None
        after = ref_of(new["metadata"]) if new is not None else None
        if old is not None and before is not None and before != after and (entry := self._entries.get(before)):
            entry.drop(old)  # it was deleted, or its labels were changed
            if new is None:
                self._notices.forget(old["metadata"]["uid"])
            self._heard(entry, old)
        if new is not None and after is not None:
            if new.get(USES_SECRET):
                self._secrets.follow(after.namespace)
            entry = self._entries.get(after) or self._entries.setdefault(after, Entry(after, found=True))
            entry.put(new)
            self._heard(entry, new)

    def _heard(self, entry: Entry, obj: Object) -> None:
        self._changed_members(entry)
        if obj["kind"] != "Pod":
            self._look_at(entry, path_of_object(obj))

    def _changed_members(self, entry: Entry) -> None:
        if not entry.members and entry.wanted is None:
            if self._entries.get(entry.ref) is entry:
                del self._entries[entry.ref]
                if not any(ref.namespace == entry.ref.namespace for ref in self._entries):
                    self._secrets.leave(entry.ref.namespace)
                self._changes.notify(entry.ref)
            entry.gone.set()
            return
        self._tell(entry)

    def _noticed(self, namespace: str, name: str) -> None:
        """Update the workload of a pod or job that has a new Event."""
        for kind in ("Pod", "Job"):
            obj = self._reflectors[kind].objects.get((namespace, name))
            if obj is not None and (ref := ref_of(obj["metadata"])) is not None and ref in self._entries:
                self._tell(self._entries[ref])

    def _polled(self, ref: WorkloadRef) -> None:
        if (entry := self._entries.get(ref)) is not None:
            self._tell(entry)

    def _observe(self, entry: Entry) -> Observation:
        polls = self._polls
        facts = PodFacts(self._settings.port, self._notices.by_uid, polls.memory, polls.progress)
        return make_observation(entry.ref, entry.wanted, entry.members, facts)

    def _tell(self, entry: Entry) -> None:
        """Notify subscribers of a workload if its observation has changed."""
        seen = self._observe(entry)
        if seen != entry.told:
            entry.told = seen
            self._changes.notify(entry.ref)
        wanted = entry.wanted
        if wanted is None or not entry.waiting or entry.deleting or entry.lock.locked():
            return
        if entry.waiting.difference(find_waiting(wanted, entry.members)):
            self._spawn(self._apply_again(entry), f"next roles of {entry.ref.id}")

    # Repairs

    def _look_at(self, entry: Entry, path: str) -> None:
        """Schedule a repair if somebody else has changed or deleted an object of the workload."""
        if path not in entry.objects or entry.deleting or entry.repair is not None or not entry.drifted(path):
            return
        if entry.lock.locked():  # it is being applied at the moment
            return
        if not self._leads():
            entry.forget()
            return
        delay = min(_REPAIR_LONGEST, _REPAIR_FIRST * 2**entry.repairs)
        entry.repair = self._spawn(self._repair(entry, delay), f"repair {entry.ref.id}")

    def _look_at_all(self, entry: Entry) -> None:
        """Tell the state after objects were applied, and schedule repairs of those that were changed meanwhile."""
        self._tell(entry)
        for path in tuple(entry.objects):
            self._look_at(entry, path)

    async def _repair(self, entry: Entry, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            while not entry.deleting:
                if not self._leads():
                    entry.forget()
                    return
                try:
                    async with entry.lock:
                        paths = await self._applier.repair(entry)
                    break
                except LLMOSError as error:
                    logger.warning("%s/%s can't be repaired: %s", entry.ref.namespace, entry.ref.name, error)
                    await asyncio.sleep(_RETRY)
            else:
                return
            if paths:
                entry.repairs = min(entry.repairs + 1, 20)
                asyncio.get_running_loop().call_later(_REPAIR_CALM, _calm, entry)
                logger.info("Applied again what was changed or removed: %s", ", ".join(paths))
        finally:
            entry.repair = None
        for path in tuple(entry.objects):
            self._look_at(entry, path)

    def _demanded(self, namespace: str) -> None:
        """Schedule the workloads of a namespace to be applied again: its quota demands something else."""
        for ref, entry in self._entries.items():
            if ref.namespace == namespace and entry.wanted is not None and not entry.deleting:
                self._spawn(self._apply_again(entry), f"demands on {ref.id}")

    async def _apply_again(self, entry: Entry) -> None:
        """Apply a workload again whose quota demands something else, or that has roles which can be started now."""
        async with entry.lock:
            if entry.wanted is None or entry.deleting or not self._leads():
                return
            try:
                await self._applier.apply(entry, entry.wanted)
            except LLMOSError as error:  # the next reconciliation applies it
                logger.warning("%s/%s can't be applied again: %s", entry.ref.namespace, entry.ref.name, error)
        self._look_at_all(entry)

    async def _look_for_lost(self) -> None:
        """Delete pods by force that should have ended long ago: their nodes are lost and won't report their end."""
        while True:
            await asyncio.sleep(_LOOK)
            now = datetime.now(UTC)
            for pod in list(self._reflectors["Pod"].objects.values()) if self._leads() else ():
                until = pod["metadata"].get("deletionTimestamp")
                if until and (now - datetime.fromisoformat(until)).total_seconds() > _LOST:
                    logger.info("%s: its machine is lost; it is forgotten", pod["metadata"]["name"])
                    await self._applier.force(pod)


def _calm(entry: Entry) -> None:
    entry.repairs = max(0, entry.repairs - 1)
