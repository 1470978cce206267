"""Creation of namespaces on first use, before the first object is created in them.

In a cluster this process creates only the namespace itself; its contents (quota, policies, bindings) are created
by the controllers, which have the necessary rights. Pods must not be started before that: request it with
`prepared`. On a workstation namespaces are only names and are not created.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from llmos.errors import Conflict, Forbidden, Internal, LLMOSError, NotFound, Unavailable
from llmos.names import KEY_INSTANCE, KEY_MANAGED_BY, KEY_OWNER, KEY_OWNER_CREATED, KEY_OWNER_KIND, KEY_PREPARED
from llmos_hub.identity.people import HubPeople
from llmos_hub.kubernetes.connection import FIELD_MANAGER, APIError, KubernetesAPI, path_of
from llmos_hub.managers.namespace_objects import make_namespace, owner_of
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.policy import NamespaceOwner, Rights

__all__ = ["KubernetesNamespaces", "LocalNamespaces", "NamespaceState", "Namespaces"]

_REMEMBERED: Final = 60.0
"""Seconds for which an existing namespace is cached, so that creating a resource needs no check."""
_MOST: Final = 10_000
_PATIENCE: Final = 20.0
"""Seconds to wait for the controllers: they may have to elect a new leader first."""
_LOOK: Final = 0.2


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """The state of a namespace, as the API shows it.

    Attributes
    ----------
    prepared
        True if its quota, policies and bindings exist.
    service_account
        The service account of people's pods there; empty on a workstation.
    created
        True if it was created by this call.
    """

    name: str
    owner: NamespaceOwner
    prepared: bool
    service_account: str = ""
    created: bool = False


class Namespaces(Protocol):
    """A creator of namespaces."""

    async def ensure(self, rights: Rights, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """Ensure that the namespace exists; idempotent.

        Parameters
        ----------
        rights
            The caller who needs it, with their rights.
        namespace
            Its name.
        prepared
            True waits until pods may be started in it.

        Raises
        ------
        Forbidden
            It isn't the caller's namespace.
        NotFound
            Its owner can't be derived from its name.
        Conflict
            The name is taken by another namespace, or it is being deleted.
        Unavailable
            The cluster or the controllers don't answer.
        """
        ...

    async def needed(self, rights: Rights, namespace: str, *, prepared: bool = False) -> None:
        """Ensure that it exists before a resource is stored in it; the caller is authorized already."""
        ...


class LocalNamespaces:
    """The namespaces of a workstation: every name exists."""

    async def ensure(self, rights: Rights, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """Return the namespace as existing and prepared."""
        del prepared
        return NamespaceState(namespace, rights.owner_of(namespace), prepared=True)

    async def needed(self, rights: Rights, namespace: str, *, prepared: bool = False) -> None:
        """Do nothing: every namespace exists."""


class KubernetesNamespaces:
    """The namespaces of a cluster.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    options
        The settings of namespaces.
    people
        Reads the creation time of users from the Hub.
    patience
        Seconds to wait until a namespace is prepared.
    clock
        A monotonic clock in seconds.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        options: NamespaceOptions,
        people: HubPeople,
        *,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._options = options
        self._people = people
        self._patience = patience
        self._clock = clock
        self._seen: dict[tuple[str, str, bool], float] = {}

    async def needed(self, rights: Rights, namespace: str, *, prepared: bool = False) -> None:
        """Call `ensure`, but ignore an unknown owner: then the store's own error follows."""
        key = (namespace, rights.caller.name, prepared)
        if self._clock() < self._seen.get(key, float("-inf")):
            return
        try:
            await self.ensure(rights, namespace, prepared=prepared)
        except NotFound:
            return
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[key] = self._clock() + _REMEMBERED

    async def ensure(self, rights: Rights, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """Ensure that it exists; see `Namespaces`."""
        there = await self._read(namespace)
        owner = await self._owner(rights, namespace, there)
        obj = there if there is not None else await self._create(namespace, owner)
        self._check(obj, owner, namespace)
        if prepared and KEY_PREPARED not in _annotations(obj):
            obj = await self._prepared(namespace)
        return self._state(obj, created=there is None)

    async def _owner(self, rights: Rights, namespace: str, obj: Mapping[str, Any] | None) -> NamespaceOwner:
        """Return the current or future owner, with the time the Hub created the user.

        Raises
        ------
        Forbidden, NotFound
            As for `Rights.owner_of`.
        """
        if obj is not None and rights.may_use_any(namespace) and (found := owner_of(obj)) is not None:
            return found
        owner = rights.owner_of(namespace)
        if owner.kind == "user":
            with contextlib.suppress(Unavailable):  # the creation time can be added later by the controllers
                person = await self._people.user(owner.name)
                owner = replace(owner, created=person.created if person is not None else "")
        return owner

    def _check(self, obj: Mapping[str, Any], owner: NamespaceOwner, namespace: str) -> None:
        """Refuse a namespace of another owner, of no release or another one, or one that is being deleted.

        Raises
        ------
        Forbidden, Conflict
            The message says what can be done.
        """
        labels, annotations = obj["metadata"].get("labels") or {}, _annotations(obj)
        release, instance = self._options.instance, labels.get(KEY_INSTANCE, "")
        if labels.get(KEY_MANAGED_BY) != "llmos" or not labels.get(KEY_OWNER_KIND):
            raise Conflict(
                f'The cluster has a namespace "{namespace}" that is not LLMOS\'. An administrator of the cluster can '
                f"remove it, or hand it over: kubectl label namespace {namespace} {KEY_MANAGED_BY}=llmos "
                f"{KEY_INSTANCE}={release} {KEY_OWNER_KIND}={owner.kind}"
            )
        if instance != release:
            raise Conflict(
                f'The namespace {namespace} belongs to another LLMOS of this cluster, "{instance}", which knows somebody '
                "of the same name. An administrator of the cluster can hand it over, with all that is in it: "
                f"kubectl label --overwrite namespace {namespace} {KEY_INSTANCE}={release}"
            )
        if obj["metadata"].get("deletionTimestamp"):
            raise Conflict(f"The namespace {namespace} is being deleted. Try again in a minute.")
        if annotations.get(KEY_OWNER, owner.name) != owner.name:
            raise Forbidden(f"The namespace {namespace} belongs to somebody else.")
        known = annotations.get(KEY_OWNER_CREATED, "")
        if owner.created and known and known != owner.created:
            raise Conflict(
                f'The namespace {namespace} belongs to an earlier account "{owner.name}", made on {known[:10]}; yours is '
                "another one of the same name. An administrator of the cluster can hand it over, with all that is in it: "
                f"kubectl annotate namespace {namespace} {KEY_OWNER_CREATED}-"
            )

    def _state(self, obj: Mapping[str, Any], *, created: bool) -> NamespaceState:
        return NamespaceState(
            obj["metadata"]["name"],
            owner_of(obj) or NamespaceOwner("user", ""),
            prepared=KEY_PREPARED in _annotations(obj),
            service_account=self._options.service_account,
            created=created,
        )

    async def _prepared(self, namespace: str) -> dict[str, Any]:
        """Wait until the controllers have created its contents, and return the namespace.

        Raises
        ------
        Unavailable
            They don't within `patience`.
        """
        deadline = self._clock() + self._patience
        while self._clock() < deadline:
            await asyncio.sleep(_LOOK)
            obj = await self._read(namespace)
            if obj is not None and KEY_PREPARED in _annotations(obj):
                return obj
        raise Unavailable(
            f"The namespace {namespace} was made, but its quota and network policies are not in it after "
            f"{self._patience:.0f} s. Do the controllers run? kubectl get pods -l app.kubernetes.io/component=controllers"
        )

    # Calls

    async def _read(self, namespace: str) -> dict[str, Any] | None:
        try:
            return await self._api.find(path_of("v1", "namespaces", None, namespace))
        except APIError as error:
            raise _refused("read", namespace, error) from None

    async def _create(self, namespace: str, owner: NamespaceOwner) -> dict[str, Any]:
        body = make_namespace(namespace, owner, self._options)
        params = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._api.request("POST", path_of("v1", "namespaces"), params=params, body=body)
        except APIError as error:
            there = await self._read(namespace) if error.status == 409 else None
            if there is not None:
                return there
            raise _refused("make", namespace, error) from None


def _annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def _refused(verb: str, namespace: str, error: APIError) -> LLMOSError:
    if error.status >= 500:
        return Unavailable(f"The cluster can't {verb} the namespace {namespace} now: {error.message}.")
    return Internal(
        f"The cluster does not let the platform {verb} the namespace {namespace}: {error.message}. "
        "Does the API's service account have the chart's role?"
    )
