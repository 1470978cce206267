"""A person's namespace: made where it is missing, waited for until the controllers have prepared it, never another's."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from jupyterhub.utils import isoformat
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from traitlets import Float, Unicode, default

from llmos.names import user_namespace
from llmos_spawners.pods import Phase
from llmos_spawners.refusals import refusal

__all__ = ["CREATED", "OWNER", "PREPARED", "UNREACHABLE", "NamespacedKubeSpawner"]

OWNER: Final = "llmos.ai/owner"
CREATED: Final = "llmos.ai/owner-created"
PREPARED: Final = "llmos.ai/prepared"
"""The controllers set it once quota, network policies and rights are in a namespace."""

_KEPT: Final = "llmos"
"""In a spawner's state: what is kept beside that which another spawner would read."""

UNREACHABLE: Final = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)
"""What a request to an API server raises that is away for a moment."""


class NamespacedKubeSpawner(KubeSpawner):
    """KubeSpawner whose namespaces are LLMOS'."""

    instance = Unicode(
        "llmos",
        config=True,
        help="""
        The release whose controllers prepare the namespaces: the label ``app.kubernetes.io/instance`` by which they
        know theirs.
        """,
    )
    namespace_timeout = Float(
        60,
        config=True,
        help="""
        Seconds to wait until the controllers have prepared a person's namespace: without, a server would run with no
        quota and no network policy. They need about one second. 0: don't wait, for a Hub without LLMOS'
        controllers.
        """,
    )

    # KubeSpawner's, as they are read and written here
    namespace: str
    dns_name: str
    pvc_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step = Phase(5, "Beginning")  # what is being done before there is a pod
        self._own_namespace = self.namespace
        # the state that another spawner left: where the person's home was before LLMOS came
        self._earlier: dict[str, Any] = {}
        self._visiting = False  # a server that another spawner started still runs where that one put it

    @default("enable_user_namespaces")
    def _default_enable_user_namespaces(self) -> bool:
        return True

    @default("user_namespace_template")
    def _default_user_namespace_template(self) -> str:
        return user_namespace(self.user.name)

    @default("user_namespace_labels")
    def _default_user_namespace_labels(self) -> dict[str, str]:
        ours = {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": self.instance}
        return {**ours, "llmos.ai/owner-kind": "user"}

    @default("user_namespace_annotations")
    def _default_user_namespace_annotations(self) -> dict[str, str]:
        annotations = {OWNER: "{unescaped_username}"}  # a template: a name may have braces in it
        if created := self._owner_created():
            annotations[CREATED] = created
        return annotations

    def _owner_created(self) -> str:
        """When the Hub made the person: a name can be deleted and made anew by somebody else."""
        created = getattr(getattr(self.user, "orm_user", None), "created", None)
        return isoformat(created) or ""

    # KubeSpawner remembers for ever where somebody's servers and home are. On a Hub that was there before LLMOS that
    # is the Hub's own namespace: those servers are followed until they stop, and the next start is in the person's own
    # namespace. Where servers are now stands apart, so that a Hub that LLMOS has left finds what its spawner knew.

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over where a server is, also from the spawner that the Hub had before."""
        kept = state.get(_KEPT)
        if kept is not None:
            self._earlier, state = kept["earlier"], kept["own"]
        elif self.enable_user_namespaces and state.get("namespace", self._own_namespace) != self._own_namespace:
            self._earlier, self._visiting = dict(state), True
        super().load_state(state)
        if self.orm_spawner is None or self.orm_spawner.server is None:
            self._come_home()

    def get_state(self) -> dict[str, Any]:
        """Where the server and the home are; for another spawner, where they were before."""
        state: dict[str, Any] = super().get_state()
        if not self.enable_user_namespaces or self._visiting:
            return state
        return {**self._earlier, _KEPT: {"own": state, "earlier": self._earlier}}

    def clear_state(self) -> None:
        """After a stop: the next start is in the person's own namespace."""
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
        """The person's namespace, made where it is missing, and prepared by the controllers.

        Raises
        ------
        HTTPError
            It is somebody else's, or nobody prepared it in time.
        """
        self._step = Phase(8, f"Preparing the namespace {self.namespace}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.namespace_timeout
        while True:
            found = await self._read_namespace()
            if found is not None:
                self._check_owner(found)
                if not self.namespace_timeout or PREPARED in (found.metadata.annotations or {}):
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
        """The namespace; None where it is only being made, or the API server is away."""
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
            if exc.status not in (403, 409):  # made by somebody else meanwhile, or only by the controllers
                raise
        except UNREACHABLE:
            pass
        return None

    def make_namespace(self) -> dict[str, Any]:
        """The namespace as the spawner makes it; the controllers put the rest there."""
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
        owner, created = annotations.get(OWNER), annotations.get(CREATED)
        if owner is None and not self.namespace_timeout:
            return  # a site without LLMOS' controllers made it
        if owner == self.user.name and (not created or created == self._owner_created()):
            return
        whose = "an earlier person of that name" if owner == self.user.name else (owner or "somebody else")
        raise refusal(
            f"The namespace {self.namespace} belongs to {whose}. The operator of this platform can delete it, with all "
            "that is in it, or rename you.",
            reason="namespace",
            status=403,
        )
