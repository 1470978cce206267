"""Logs of pods, for a process other than the controllers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from llmos.errors import Internal, NotFound
from llmos.resources import Resource
from llmos_hub.backends.kubernetes.logs import read_logs
from llmos_hub.backends.kubernetes.names import workload_selector
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.managers.logs import nothing_has_run
from llmos_hub.stores.base import Store
from llmos_hub.workload import WorkloadRef

__all__ = ["PodLogReader"]


class PodLogReader:
    """A reader of logs from the API server; see `llmos_hub.managers.logs.ResourceLogReader`.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    store
        The store of resources: a log is followed as long as its resource exists.
    """

    def __init__(self, api: KubernetesAPI, store: Store) -> None:
        self._api = api
        self._store = store

    @contextlib.asynccontextmanager
    async def lines(
        self, resource: Resource, *, replica: str | None, tail: int | None, follow: bool
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Provide the lines. Connections are closed when the context ends."""
        meta = resource.metadata

        async def exists() -> bool:
            try:
                there = await self._store.get(type(resource), meta.namespace, meta.name)
            except NotFound:
                return False
            return there.metadata.uid == meta.uid

        for part in resource.log_parts:
            ref = WorkloadRef(resource.kind, meta.namespace or "", meta.name, meta.uid or "", part)
            if await self._has_pods(ref):
                lines = read_logs(self._api, ref, replica=replica, tail=tail, follow=follow, exists=exists)
                async with contextlib.aclosing(lines) as stream:
                    yield stream
                return
        raise nothing_has_run(resource)

    async def _has_pods(self, ref: WorkloadRef) -> bool:
        params = {"labelSelector": workload_selector(ref), "limit": "1"}
        try:
            found = await self._api.request("GET", path_of("v1", "pods", ref.namespace), params=params)
        except APIError as error:
            raise Internal(
                f"The cluster refuses to list the pods of {ref.namespace}/{ref.name}: {error.message}. "
                "Does the API's service account have the chart's role?"
            ) from None
        return bool(found.get("items"))
