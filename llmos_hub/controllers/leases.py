"""The lease of `llmos_hub.controllers.election` as a Lease of ``coordination.k8s.io/v1``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llmos.errors import AlreadyExists, Conflict, Internal
from llmos.names import KEY_MANAGED_BY
from llmos.resources.base import utcnow
from llmos_hub.controllers.election import Lease
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.names import KEY_APP

__all__ = ["LEASE_NAME", "KubernetesLeases", "make_lease", "read_lease"]

LEASE_NAME: Final = "llmos-controllers"
_API_VERSION: Final = "coordination.k8s.io/v1"
_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
"""A MicroTime: always six decimal digits."""


def make_lease(namespace: str, name: str, lease: Lease) -> dict[str, Any]:
    """Return the Lease object."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {KEY_APP: "llmos", KEY_MANAGED_BY: "llmos"},
    }
    if lease.version:
        metadata["resourceVersion"] = lease.version
    return {
        "apiVersion": _API_VERSION,
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": max(1, round(lease.duration)),  # Kubernetes accepts only integers
            "acquireTime": lease.acquired.astimezone(UTC).strftime(_FORMAT),
            "renewTime": lease.renewed.astimezone(UTC).strftime(_FORMAT),
            "leaseTransitions": lease.transitions,
        },
    }


def read_lease(obj: Mapping[str, Any]) -> Lease:
    """Return the lease in an object; missing times count as long past."""
    spec = obj.get("spec") or {}
    return Lease(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        acquired=_time(spec.get("acquireTime")),
        renewed=_time(spec.get("renewTime")),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=str(obj["metadata"]["resourceVersion"]),
    )


def _time(text: str | None) -> datetime:
    try:
        return datetime.fromisoformat(text) if text else datetime.fromtimestamp(0, UTC)
    except ValueError:
        return utcnow()


class KubernetesLeases:
    """A store of one Lease in the API server; see `llmos_hub.controllers.election.Leases`.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    namespace
        The release's own namespace.
    """

    def __init__(self, api: KubernetesAPI, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def read(self) -> Lease | None:
        """Return the current lease; None if it doesn't exist."""
        try:
            found = await self._api.find(self._path(LEASE_NAME))
        except APIError as error:
            raise self._refused(error) from None
        return read_lease(found) if found is not None else None

    async def write(self, lease: Lease) -> Lease:
        """Create the lease, or replace the one with that version."""
        body = make_lease(self._namespace, LEASE_NAME, lease)
        try:
            if lease.version:
                return read_lease(await self._api.request("PUT", self._path(LEASE_NAME), body=body))
            return read_lease(await self._api.request("POST", self._path(), body=body))
        except APIError as error:
            if error.status in (404, 409):  # 404: deleted since it was read
                kind = AlreadyExists if error.reason == "AlreadyExists" else Conflict
                raise kind(error.message) from None
            raise self._refused(error) from None

    def _path(self, name: str = "") -> str:
        return path_of(_API_VERSION, "leases", self._namespace, name)

    def _refused(self, error: APIError) -> Internal:
        return Internal(
            f"The cluster refuses the lease {self._namespace}/{LEASE_NAME}: {error.message}. "
            "Does the controllers' service account have the chart's role?"
        )
