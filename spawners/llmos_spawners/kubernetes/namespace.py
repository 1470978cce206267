"""The namespace of a user's servers: created if it is missing, prepared by the controllers, and checked for its owner."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from jupyterhub.utils import isoformat
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from traitlets import Float, Unicode, default

from llmos.names import (
    KEY_INSTANCE,
    KEY_MANAGED_BY,
    KEY_OWNER,
    KEY_OWNER_CREATED,
    KEY_OWNER_KIND,
    KEY_PREPARED,
    user_namespace,
)
from llmos_spawners.base import own_default
from llmos_spawners.refusals import refusal
from llmos_spawners.start_phases import Phase

__all__ = ["UNREACHABLE", "NamespacedKubeSpawner"]


_KEPT: Final = "llmos"
"""Key in a spawner's state for values that other spawners don't know."""

UNREACHABLE: Final = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)
"""Exceptions of requests to an API server that is temporarily unreachable."""


class NamespacedKubeSpawner(KubeSpawner):
    """A KubeSpawner that starts servers in LLMOS' namespaces."""

    instance = Unicode(
        "llmos",
        config=True,
        help="""
        The release whose controllers prepare the namespaces, which they select by this value of the label
        ``app.kubernetes.io/instance``.
        """,
    )
    namespace_timeout = Float(
        60,
        config=True,
        help="""
        Maximum seconds to wait until the controllers have prepared a user's namespace, without which a server would run
        without quota and network policies. They need about one second. 0 means not to wait, for a Hub without LLMOS'
        controllers.
        """,
    )

    # Types of KubeSpawner's attributes
    namespace: str
    dns_name: str
    pvc_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step = Phase(5, "Beginning")  # the progress before there is a pod
        self._own_namespace = self.namespace
        # the state left by the spawner before LLMOS was installed, with the namespace of the user's home
        self._earlier: dict[str, Any] = {}
        self._visiting = False  # True while a server started by that spawner still runs in its namespace

    _default_enable_user_namespaces = own_default("enable_user_namespaces", True)

    @default("user_namespace_template")
    def _default_user_namespace_template(self) -> str:
        return user_namespace(self.user.name)

    @default("user_namespace_labels")
    def _default_user_namespace_labels(self) -> dict[str, str]:
        ours = {KEY_MANAGED_BY: "llmos", KEY_INSTANCE: self.instance}
        return {**ours, KEY_OWNER_KIND: "user"}

    @default("user_namespace_annotations")
    def _default_user_namespace_annotations(self) -> dict[str, str]:
        annotations = {KEY_OWNER: "{unescaped_username}"}  # a template, as the name itself may contain braces
        if created := self._owner_created():
            annotations[KEY_OWNER_CREATED] = created
        return annotations

    def _owner_created(self) -> str:
        """Return the user's creation time, which distinguishes them from a former user of the same name."""
        created = getattr(getattr(self.user, "orm_user", None), "created", None)
        return isoformat(created) or ""

    # KubeSpawner stores the namespace of a user's servers and home permanently. On a Hub that existed before LLMOS this is
    # the Hub's own namespace: servers there are managed until they stop, and the next start is in the user's own
    # namespace. The new state is stored under a key of its own, so that after removing LLMOS from a Hub, its former
    # spawner finds its state unchanged.

    def load_state(self, state: dict[str, Any]) -> None:
        """Load a server's state, also that of the Hub's former spawner."""
        kept = state.get(_KEPT)
        if kept is not None:
            self._earlier, state = kept["earlier"], kept["own"]
        elif self.enable_user_namespaces and state.get("namespace", self._own_namespace) != self._own_namespace:
            self._earlier, self._visiting = dict(state), True
        super().load_state(state)
        if self.orm_spawner is None or self.orm_spawner.server is None:
            self._come_home()

    def get_state(self) -> dict[str, Any]:
        """Return the server's state, with that of the Hub's former spawner for its use after LLMOS is removed."""
        state: dict[str, Any] = super().get_state()
        if not self.enable_user_namespaces or self._visiting:
            return state
        return {**self._earlier, _KEPT: {"own": state, "earlier": self._earlier}}

    def clear_state(self) -> None:
        """Clear the state after a stop; the next start is in the user's own namespace."""
        super().clear_state()
        self._come_home()

    def _come_home(self) -> None:
        if not self._visiting:
            return
        self._visiting = False
        self.namespace = self._own_namespace
        self.dns_name = self.dns_name_template.format(namespace=self.namespace, name=self.pod_name)
        self.pvc_name = self._expand_user_properties(self.pvc_name_template)
        self._pvc_exists = False

    async def _ensure_namespace(self) -> None:
        """Create the user's namespace if it is missing, and wait until the controllers have prepared it.

        Raises
        ------
        HTTPError
            The namespace belongs to somebody else, or was not prepared in time.
        """
        self._step = Phase(8, f"Preparing the namespace {self.namespace}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.namespace_timeout
        while True:
            found = await self._read_namespace()
            if found is not None:
                self._check_owner(found)
                if not self.namespace_timeout or KEY_PREPARED in (found.metadata.annotations or {}):
                    return
            if loop.time() > deadline:
                raise refusal(
                    f"The namespace {self.namespace} was not prepared within {self.namespace_timeout:g} s: quota, network "
                    "policies and rights are missing. The controllers do that: do they run? Tell the operator of this "
                    "platform.",
                    reason="namespace",
                    status=503,
                )
            await asyncio.sleep(0.2)

    async def _read_namespace(self) -> Any:
        """Return the namespace, and create it if it is missing; None if it is to be read again."""
        timeout = self.k8s_api_request_timeout
        try:
            return await self.api.read_namespace(self.namespace, _request_timeout=timeout)
        except ApiException as exc:
            if exc.status != 404:
                raise
        except UNREACHABLE:
            return None
        try:
            return await self.api.create_namespace(self.make_namespace(), _request_timeout=timeout)
        except ApiException as exc:
            if exc.status not in (403, 409):  # created meanwhile, or only the controllers may create it
                raise
        except UNREACHABLE:
            pass
        return None

    def make_namespace(self) -> dict[str, Any]:
        """Return the namespace as the spawner creates it; the controllers add the rest."""
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": self._expand_all(self.user_namespace_labels),
                "annotations": self._expand_all(self.user_namespace_annotations),
            },
        }

    def _check_owner(self, found: Any) -> None:
        annotations = found.metadata.annotations or {}
        if found.status and found.status.phase == "Terminating":
            raise refusal(f"{self.namespace} is being deleted. Try again in a minute.", reason="namespace", status=409)
        owner, created = annotations.get(KEY_OWNER), annotations.get(KEY_OWNER_CREATED)
        if owner is None and not self.namespace_timeout:
            return  # created by a site without LLMOS' controllers
        if owner == self.user.name and (not created or created == self._owner_created()):
            return
        whose = "an earlier person of that name" if owner == self.user.name else (owner or "somebody else")
        raise refusal(
            f"The namespace {self.namespace} belongs to {whose}. The operator of this platform can delete it, with all "
            "that is in it, or rename you.",
            reason="namespace",
            status=403,
        )
