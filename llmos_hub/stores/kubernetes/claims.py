"""Leases of ``coordination.k8s.io/v1`` under which names are claimed, since a cluster has no transactions.

A writer that claims names holds its kind's lease in the namespace while it reads who has them and writes, so writers in
any number of processes go one after the other. A lease that is not given back is deleted by the next writer that has
seen it for its whole duration by its own clock, so that clocks needn't agree.

A write is given up `MARGIN` seconds before its lease can be taken over. The API server can't check the lease in
the write itself, so one gap remains: a request that is sent in time but arrives more than `MARGIN` seconds later, because
its process was suspended or the network held it back, can claim a name that another resource has got meanwhile.
Nor does a lease stop those who write with kubectl; the names of their resources count like all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from llmos.errors import Unavailable
from llmos.names import KEY_MANAGED_BY
from llmos.resources.base import Resource, utcnow
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.names import KEY_APP
from llmos_hub.stores.locks import KeyedLocks

__all__ = ["DURATION", "MARGIN", "ClaimLeases", "make_claim_lease"]

DURATION: Final = 15.0
"""Seconds after which a lease that is not given back can be taken over: time for a list and a write, both slow."""
MARGIN: Final = 5.0
"""Seconds before the end of its lease at which a write is given up."""
_PATIENCE: Final = 2 * DURATION  # seconds to wait for other writers, so that one killed writer is outlived
_PAUSE: Final = 0.1  # seconds between two looks at another's lease
_API_VERSION: Final = "coordination.k8s.io/v1"


def make_claim_lease(kind: type[Resource], namespace: str, holder: str, duration: float) -> dict[str, Any]:
    """Return the Lease object."""
    return {
        "apiVersion": _API_VERSION,
        "kind": "Lease",
        "metadata": {
            "name": f"llmos-{kind.plural}",
            "namespace": namespace,
            "labels": {KEY_APP: "llmos", KEY_MANAGED_BY: "llmos"},
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(duration)),  # Kubernetes accepts only integers
            "acquireTime": utcnow().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


class ClaimLeases:
    """The leases under which names are claimed, one for each kind and namespace.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    duration, margin
        Seconds; see `DURATION` and `MARGIN`.
    """

    def __init__(self, api: KubernetesAPI, *, duration: float = DURATION, margin: float = MARGIN) -> None:
        self._api = api
        self._duration, self._margin = duration, margin
        self._holder = uuid.uuid4().hex
        self._locks = KeyedLocks()

    @contextlib.asynccontextmanager
    async def holding(self, kind: type[Resource], namespace: str) -> AsyncIterator[Callable[[], float]]:
        """Hold the lease of a kind in a namespace while the context lasts.

        Yields a function that returns the seconds left for the write, to be called right before it; it raises
        Unavailable if there is no time left.

        Raises
        ------
        APIError
            The cluster refuses the lease.
        Unavailable
            Others hold it too long, or the cluster doesn't answer.
        """
        lease = make_claim_lease(kind, namespace, self._holder, self._duration)
        async with self._locks.holding((kind, namespace)):  # writers in this process don't poll for each other
            until, uid = await self._take(lease)
            try:
                yield lambda: _left(until)
            except (Unavailable, asyncio.CancelledError):
                raise  # the write may still arrive, so the next writer waits until the lease has expired
            except BaseException:
                await self._drop(lease, uid)
                raise
            await self._drop(lease, uid)

    async def _take(self, lease: dict[str, Any]) -> tuple[float, str]:
        """Create the lease, when nobody holds it any longer; returns the time until which to write, and its uid."""
        deadline = time.monotonic() + _PATIENCE
        seen, since = "", 0.0
        while True:
            begun = time.monotonic()
            try:
                made = await self._api.request("POST", _path(lease, name=False), body=lease)
            except APIError as error:
                if error.reason != "AlreadyExists":
                    raise
            else:
                return begun + self._duration - self._margin, made["metadata"]["uid"]
            held = await self._api.find(_path(lease))
            now = time.monotonic()
            if held is not None and held["metadata"]["uid"] != seen:
                seen, since = held["metadata"]["uid"], now
            elif held is not None and now - since >= float(held["spec"].get("leaseDurationSeconds") or 0):
                await self._drop(lease, seen)
                continue
            if now > deadline:
                raise Unavailable("Others are claiming names in this namespace. Try again in a moment.")
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - only spreads the writers

    async def _drop(self, lease: dict[str, Any], uid: str) -> None:
        """Delete the lease with that uid; if that fails, it expires."""
        with contextlib.suppress(APIError, Unavailable):
            await self._api.request("DELETE", _path(lease), body={"preconditions": {"uid": uid}})


def _path(lease: dict[str, Any], *, name: bool = True) -> str:
    meta = lease["metadata"]
    return path_of(_API_VERSION, "leases", meta["namespace"], meta["name"] if name else "")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise Unavailable("The cluster was too slow to claim the names. Nothing was written: try again.")
    return left
