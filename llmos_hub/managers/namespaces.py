"""Namespaces on first need: whoever is about to put something into one has it made.

In a cluster this process makes the namespace itself and nothing in it; what belongs into it (quota, policies, bindings)
is put there by the controllers, which have the rights for that. Pods must not be started before they have: ask for it
`prepared`. On a workstation namespaces are names and need not be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from llmos.errors import Conflict, Forbidden, Internal, LLMOSError, NotFound, Unavailable
from llmos_hub.identity.people import People
from llmos_hub.kubernetes_api import FIELD_MANAGER, APIError, KubernetesAPI, path_of
from llmos_hub.managers.namespace_objects import (
    CREATED,
    INSTANCE,
    MANAGED_BY,
    OWNER,
    OWNER_KIND,
    PREPARED,
    Owner,
    make_namespace,
)
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.names import PUBLIC_NAMESPACE, SCOPE_MANAGE, group_namespace, user_namespace
from llmos_hub.policy import Caller

__all__ = ["KubernetesNamespaces", "LocalNamespaces", "NamespaceState", "Namespaces", "owner_for"]

_REMEMBERED: Final = 60.0
"""Seconds for which a namespace that was seen is taken to be there: creating a resource needs no look then."""
_MOST: Final = 10_000
_PATIENCE: Final = 20.0
"""Seconds to wait for the controllers: a new leader may have to be found first."""
_LOOK: Final = 0.2


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """A namespace as those see it who ask for it.

    Attributes
    ----------
    prepared
        Whether quota, policies and bindings are in it.
    service_account
        The account that pods of people should have there; empty on a workstation.
    created
        Whether it was made just now.
    """

    name: str
    owner: Owner
    prepared: bool
    service_account: str = ""
    created: bool = False


class Namespaces(Protocol):
    """Has namespaces made."""

    async def ensure(self, caller: Caller, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """See to it that the namespace is there; the same again changes nothing.

        Parameters
        ----------
        caller
            Who needs it.
        namespace
            Its name.
        prepared
            Wait until pods may be started in it.

        Raises
        ------
        Forbidden
            It isn't the caller's.
        NotFound
            Nobody can be told whose it would be.
        Conflict
            Something else has that name, or it is being deleted.
        Unavailable
            The cluster or the controllers don't answer.
        """
        ...

    async def needed(self, caller: Caller, namespace: str, *, prepared: bool = False) -> None:
        """A resource is about to be stored in it, by someone who may: as `ensure`."""
        ...


def owner_for(caller: Caller, namespace: str) -> Owner:
    """Whose a namespace is, as far as its name and the caller tell; admins may name any.

    Raises
    ------
    Forbidden
        It isn't the caller's to ask for.
    NotFound
        The name alone doesn't tell whose it is.
    """
    if SCOPE_MANAGE not in caller.scopes:
        raise Forbidden(f"This token lacks the scope {SCOPE_MANAGE}. Make one that has it on the Hub's token page.")
    if namespace == caller.namespace:
        return Owner("user", caller.name)
    for group in caller.groups:
        if namespace == group_namespace(group):
            return Owner("group", group)
    if not caller.admin:
        raise Forbidden(f"The namespace {namespace[:80]} is not yours. Yours is {caller.namespace}.")
    if namespace == PUBLIC_NAMESPACE:
        return Owner("platform", PUBLIC_NAMESPACE)
    kind, _, name = namespace.partition("-")
    if kind == "user" and user_namespace(name) == namespace:
        return Owner("user", name)
    if kind == "group" and group_namespace(name) == namespace:
        return Owner("group", name)
    raise NotFound(
        f'There is no namespace "{namespace[:80]}" yet, and its name does not tell whose it would be. '
        "It is made when its owner first starts a server or creates something."
    )


class LocalNamespaces:
    """On a workstation: every namespace is there."""

    async def ensure(self, caller: Caller, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """Say so."""
        del prepared
        return NamespaceState(namespace, owner_for(caller, namespace), prepared=True)

    async def needed(self, caller: Caller, namespace: str, *, prepared: bool = False) -> None:
        """Nothing need be done."""


class KubernetesNamespaces:
    """Namespaces of a cluster.

    Parameters
    ----------
    api
        The connection. Not closed here.
    options
        What they look like.
    people
        Knows when the Hub made a user.
    patience
        Seconds to wait for one to be prepared.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        options: NamespaceOptions,
        people: People,
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

    async def needed(self, caller: Caller, namespace: str, *, prepared: bool = False) -> None:
        """As `ensure`, but where nobody can be told whose it would be, the store's own answer is left to come."""
        key = (namespace, caller.name, prepared)
        if self._clock() < self._seen.get(key, float("-inf")):
            return
        try:
            await self.ensure(caller, namespace, prepared=prepared)
        except NotFound:
            return
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[key] = self._clock() + _REMEMBERED

    async def ensure(self, caller: Caller, namespace: str, *, prepared: bool = False) -> NamespaceState:
        """See to it that it is there; see `Namespaces`."""
        there = await self._read(namespace)
        owner = await self._owner(caller, namespace, there)
        obj = there if there is not None else await self._create(namespace, owner)
        self._check(obj, owner, namespace)
        if prepared and PREPARED not in _annotations(obj):
            obj = await self._prepared(namespace)
        return self._state(obj, created=there is None)

    async def _owner(self, caller: Caller, namespace: str, obj: Mapping[str, Any] | None) -> Owner:
        """Whose it is, or will be, with when the Hub made them.

        Raises
        ------
        Forbidden, NotFound
            As for `owner_for`.
        """
        if obj is not None and caller.admin and namespace != caller.namespace:
            return _owner_of(obj)  # an admin may look after what is there, whosever it is
        owner = owner_for(caller, namespace)
        if owner.kind == "user":
            with contextlib.suppress(Unavailable):  # the Hub knew them a moment ago; the rest can be seen to later
                person = await self._people.user(owner.name)
                owner = replace(owner, created=person.created if person is not None else "")
        return owner

    def _check(self, obj: Mapping[str, Any], owner: Owner, namespace: str) -> None:
        """Refuse one that is somebody else's, or nobody's, or going.

        Raises
        ------
        Forbidden, Conflict
            With what can be done.
        """
        labels, annotations = obj["metadata"].get("labels") or {}, _annotations(obj)
        release, instance = self._options.instance, labels.get(INSTANCE, "")
        if labels.get(MANAGED_BY) != "llmos" or not labels.get(OWNER_KIND):
            raise Conflict(
                f'The cluster has a namespace "{namespace}" that is not LLMOS\'. An administrator of the cluster can '
                f"remove it, or hand it over: kubectl label namespace {namespace} {MANAGED_BY}=llmos "
                f"{INSTANCE}={release} {OWNER_KIND}={owner.kind}"
            )
        if instance != release:
            raise Conflict(
                f'The namespace {namespace} belongs to another LLMOS of this cluster, "{instance}", which knows somebody '
                "of the same name. An administrator of the cluster can hand it over, with all that is in it: "
                f"kubectl label --overwrite namespace {namespace} {INSTANCE}={release}"
            )
        if obj["metadata"].get("deletionTimestamp"):
            raise Conflict(f"The namespace {namespace} is being deleted. Try again in a minute.")
        if annotations.get(OWNER, owner.name) != owner.name:
            raise Forbidden(f"The namespace {namespace} belongs to somebody else.")
        known = annotations.get(CREATED, "")
        if owner.created and known and known != owner.created:
            raise Conflict(
                f'The namespace {namespace} belongs to an earlier account "{owner.name}", made on {known[:10]}; yours is '
                "another one of the same name. An administrator of the cluster can hand it over, with all that is in it: "
                f"kubectl annotate namespace {namespace} {CREATED}-"
            )

    def _state(self, obj: Mapping[str, Any], *, created: bool) -> NamespaceState:
        return NamespaceState(
            obj["metadata"]["name"],
            _owner_of(obj),
            prepared=PREPARED in _annotations(obj),
            service_account=self._options.service_account,
            created=created,
        )

    async def _prepared(self, namespace: str) -> dict[str, Any]:
        """Until the controllers have put everything into it.

        Raises
        ------
        Unavailable
            They don't.
        """
        deadline = self._clock() + self._patience
        while self._clock() < deadline:
            await asyncio.sleep(_LOOK)
            obj = await self._read(namespace)
            if obj is not None and PREPARED in _annotations(obj):
                return obj
        raise Unavailable(
            f"The namespace {namespace} was made, but its quota and network policies are not in it after "
            f"{self._patience:.0f} s. Do the controllers run? kubectl get pods -l app.kubernetes.io/component=controllers"
        )

    # Calls

    async def _read(self, namespace: str) -> dict[str, Any] | None:
        try:
            return await self._api.request("GET", path_of("v1", "namespaces", None, namespace))
        except APIError as error:
            if error.status == 404:
                return None
            raise _refused("read", namespace, error) from None

    async def _create(self, namespace: str, owner: Owner) -> dict[str, Any]:
        body = make_namespace(namespace, owner, self._options)
        params = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._api.request("POST", path_of("v1", "namespaces"), params=params, body=body)
        except APIError as error:
            there = await self._read(namespace) if error.status == 409 else None
            if there is not None:
                return there
            raise _refused("make", namespace, error) from None


def _owner_of(obj: Mapping[str, Any]) -> Owner:
    labels, annotations = obj["metadata"].get("labels") or {}, _annotations(obj)
    kind = labels.get(OWNER_KIND)
    return Owner(
        kind if kind in ("group", "platform") else "user", annotations.get(OWNER, ""), annotations.get(CREATED, "")
    )


def _annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def _refused(verb: str, namespace: str, error: APIError) -> LLMOSError:
    if error.status >= 500:
        return Unavailable(f"The cluster can't {verb} the namespace {namespace} now: {error.message}.")
    return Internal(
        f"The cluster does not let the platform {verb} the namespace {namespace}: {error.message}. "
        "Does the API's service account have the chart's role?"
    )
