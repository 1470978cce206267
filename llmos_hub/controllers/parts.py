"""The parts of the controllers' process, for a workstation or a cluster, depending on the settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llmos.errors import LLMOSError, Unavailable, UsageError
from llmos.resources.node import Node
from llmos.resources.workload import Resources
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Leadership, Timing
from llmos_hub.controllers.fencing import fenced
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.metrics import ProcessMetrics
from llmos_hub.controllers.registry import Cluster
from llmos_hub.engines.base import Machine
from llmos_hub.engines.machine import detect
from llmos_hub.managers.nodes import Nodes, largest_machine
from llmos_hub.names import ENV_RELEASE
from llmos_hub.settings import ProcessSettings, seconds
from llmos_hub.stores import open_store_for
from llmos_hub.stores.base import Store
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
from llmos_hub.volumes.base import NoVolumes, Volumes

if TYPE_CHECKING:
    from llmos_hub.managers.namespace_options import NamespaceOptions

__all__ = ["ENV_LEASE_SECONDS", "ClusterMachines", "Parts", "local_context", "opened"]

ENV_LEASE_SECONDS: Final = "LLMOS_LEASE_SECONDS"
"""Seconds for which no process works after a leader was killed; 15, as for Kubernetes' own controllers."""
_REFRESH: Final = 60.0
"""Seconds between reads of the nodes."""
_RETRY: Final = 2.0

logger = logging.getLogger(__name__)

Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Parts:
    """The parts that are opened once and closed at the end.

    Attributes
    ----------
    store, backend
        The store of resources and the backend of workloads; the backend has been started.
    context
        The context of workloads' processes.
    leadership
        The leadership among several processes; None if this process leads.
    always, while_leading
        Tasks beside the controllers that run until cancelled: always, and only while leading.
    namespaces
        In a cluster, the owners of namespaces. Resources in other releases' namespaces are ignored.
    cluster
        In a cluster, the parts for the controllers of Kubernetes' own objects; without it they don't run.
    metrics
        The metrics to update.
    volumes
        The provider of volumes.
    """

    store: Store
    backend: Backend
    context: WorkloadContext
    leadership: Leadership | None = None
    always: Sequence[Task] = ()
    while_leading: Sequence[Task] = ()
    namespaces: ReleaseNamespaces | None = None
    cluster: Cluster | None = None
    metrics: ProcessMetrics = field(default_factory=ProcessMetrics)
    volumes: Volumes = field(default_factory=NoVolumes)


def local_context(settings: ProcessSettings) -> WorkloadContext:
    """Return the context of this machine."""
    machine = detect()
    return WorkloadContext(Layout(settings.data_dir.models, per_namespace=False), lambda _: machine)


class ClusterMachines:
    """The largest machine that a process may get, from the cluster's nodes.

    Parameters
    ----------
    nodes
        Reads the nodes.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._known: Sequence[Node] = ()

    async def refresh(self) -> None:
        """Read the nodes.

        Raises
        ------
        Unavailable, Internal
            They can't be read.
        """
        self._known = await self._nodes.all()

    def __call__(self, resources: Resources) -> Machine:
        """Return the largest node that fits; if none does, the largest of all, so that the error can name the shortage.

        Raises
        ------
        Unavailable
            The cluster has no nodes.
        """
        found = largest_machine(self._known, resources) or largest_machine(self._known, Resources())
        if found is None:
            raise Unavailable("The cluster has no nodes. It continues once there is one.")
        return found

    async def follow(self) -> None:
        """Read the nodes periodically."""
        while True:
            await asyncio.sleep(_REFRESH)
            try:
                await self.refresh()
            except LLMOSError as error:
                logger.warning("The cluster's nodes can't be read: %s", error)


@asynccontextmanager
async def opened(settings: ProcessSettings, stop: asyncio.Future[signal.Signals]) -> AsyncIterator[Parts]:
    """Open the parts for the settings; `stop` gets the signal that ends the process.

    Raises
    ------
    UsageError
        A setting can't be read.
    BackendFailed
        The backend can't be started.
    """
    parts = _in_cluster(settings) if settings.in_cluster else _on_this_machine(settings, stop)
    async with parts as opened_parts:
        yield opened_parts


@asynccontextmanager
async def _on_this_machine(settings: ProcessSettings, stop: asyncio.Future[signal.Signals]) -> AsyncIterator[Parts]:
    from llmos_hub.backends.local.backend import LocalBackend
    from llmos_hub.volumes.local import LocalVolumes

    store = open_store_for(settings)
    backend = LocalBackend(settings.data_dir.workloads, settings.data_dir.run)
    try:
        await backend.start()
        volumes = LocalVolumes(settings.data_dir.volumes, settings.data_dir.volume_links)
        yield Parts(store, backend, local_context(settings), volumes=volumes)
    finally:
        everything = stop.done() and stop.result() is signal.SIGINT
        logger.info("Ending; workloads %s", "are stopped" if everything else "keep running")
        await backend.close(stop=everything)
        await store.close()


@asynccontextmanager
async def _in_cluster(settings: ProcessSettings) -> AsyncIterator[Parts]:
    """Open the parts in a cluster; pods keep running at the end, whatever the signal, as another process takes over."""
    from pathlib import Path

    from llmos_hub.backends.kubernetes.backend import KubernetesBackend
    from llmos_hub.backends.kubernetes.names import workload_selector
    from llmos_hub.backends.kubernetes.settings import KubernetesSettings
    from llmos_hub.controllers.election import Election, own_identity
    from llmos_hub.controllers.leases import KubernetesLeases
    from llmos_hub.kubernetes.connection import KubernetesAPI
    from llmos_hub.managers.nodes import KubernetesNodes
    from llmos_hub.volumes.kubernetes import KubernetesVolumes

    cluster = KubernetesSettings.from_environment()
    async with contextlib.AsyncExitStack() as stack:
        api = KubernetesAPI()
        stack.push_async_callback(api.close)
        # a separate connection: renewing the lease must not wait behind other requests
        leases = KubernetesAPI(timeout=5.0)
        stack.push_async_callback(leases.close)
        store = open_store_for(settings, everywhere=True)
        stack.push_async_callback(store.close)
        owners = ReleaseNamespaces(api, settings.release)
        stack.push_async_callback(owners.close)
        metrics = ProcessMetrics()
        leadership = Election(
            KubernetesLeases(leases, settings.namespace), own_identity(), timing=lease_timing(), told=metrics.lead
        )
        backend = KubernetesBackend(api, cluster, leads=lambda: leadership.leading)
        await backend.start()
        stack.push_async_callback(backend.close)
        machines = ClusterMachines(KubernetesNodes(api, settings.namespace))
        await _known(machines)
        options = _namespace_options(settings)
        context = WorkloadContext(
            Layout(Path(cluster.models.mount_path), per_namespace=True), machines, workload_selector
        )
        parts = Cluster(api, options, settings.namespace, leading=lambda: leadership.leading)
        sweeps = _sweeps(stack, settings, parts, fenced(store, leadership))
        yield Parts(
            store,
            backend,
            context,
            leadership,
            always=(machines.follow,),
            while_leading=sweeps,
            namespaces=owners,
            cluster=parts,
            metrics=metrics,
            volumes=KubernetesVolumes(api, leading=lambda: leadership.leading),
        )
        logger.info("Ending; workloads keep running")


def lease_timing(environ: Mapping[str, str] = os.environ) -> Timing:
    """Return the intervals of the leader election.

    Raises
    ------
    UsageError
        The variable is not valid.
    """
    return Timing.of(seconds(environ, ENV_LEASE_SECONDS, Timing().duration, 3, 300))


async def _known(machines: ClusterMachines) -> None:
    """Wait until the nodes can be read: without them no model can be planned."""
    while True:
        try:
            await machines.refresh()
        except LLMOSError as error:
            logger.warning("The cluster's nodes can't be read: %s Trying again in %.0f s", error, _RETRY)
            await asyncio.sleep(_RETRY)
        else:
            return


def _namespace_options(settings: ProcessSettings) -> NamespaceOptions:
    """Return the settings of namespaces.

    Raises
    ------
    UsageError
        They can't be read, or are another release's.
    """
    from llmos_hub.managers.namespace_options import ENV_NAMESPACE_SETTINGS, NamespaceOptions

    options = NamespaceOptions.from_environment()
    if options.instance != settings.release:
        raise UsageError(
            f'{ENV_RELEASE} is "{settings.release}", but {ENV_NAMESPACE_SETTINGS} says instance: "{options.instance}". '
            "Both are the release's name; the chart sets them."
        )
    return options


def _sweeps(
    stack: contextlib.AsyncExitStack, settings: ProcessSettings, cluster: Cluster, store: Store
) -> Sequence[Task]:
    """Return the clean-up after deleted people and groups; there is none without the Hub's address."""
    from llmos_hub.controllers.namespace_sweep import Sweep
    from llmos_hub.identity.people import HubPeople

    if not (settings.hub_api_url and settings.hub_token):
        return ()
    people = HubPeople(settings.hub_api_url, settings.hub_token)
    stack.push_async_callback(people.close)
    return (Sweep(cluster, store, people).work,)
