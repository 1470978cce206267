"""The reconciler of people's and groups' namespaces in a cluster: fills, repairs and cleans them.

The objects are those of `llmos_hub.managers.namespace_objects`. It is level-triggered like every controller: on any
change of a namespace or of our objects in it, the whole namespace is compared, and differing objects are applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmos.errors import LLMOSError, Unavailable
from llmos.names import KEY_INSTANCE, KEY_MANAGED_BY, KEY_PREPARED
from llmos_hub.controllers.cluster_informer import ClusterInformer, Object, covers
from llmos_hub.controllers.fencing import require_leadership
from llmos_hub.controllers.reconciler import Controller, Queueing, Result
from llmos_hub.controllers.registry import Cluster
from llmos_hub.kubernetes.connection import APIError, path_of
from llmos_hub.managers.namespace_objects import (
    contents_hash,
    make_contents,
    make_namespace,
    object_path,
    owner_of,
)
from llmos_hub.names import KEY_COMPONENT, PUBLIC_NAMESPACE
from llmos_hub.policy import NamespaceOwner
from llmos_hub.stores.informer import Key

__all__ = ["CONTENTS", "NamespaceReconciler", "namespace_controller"]

CONTENTS: Final = {
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "LimitRange": ("v1", "limitranges"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
}
"""The kinds watched in all namespaces. Secrets are not: their contents would be kept in memory."""

_PUBLIC: Final[Key] = ("", PUBLIC_NAMESPACE)

logger = logging.getLogger(__name__)


class NamespaceReconciler:
    """The reconciler of all namespaces of one release.

    Parameters
    ----------
    cluster
        The parts of the process. The release's own namespace is never touched.
    requeue
        Called with the key of a namespace that changed, or in which something changed.
    """

    def __init__(self, cluster: Cluster, requeue: Callable[[Key], None]) -> None:
        self._api, self._options, self._release = cluster.api, cluster.options, cluster.release
        self._leading = cluster.leading
        api, ours = cluster.api, f"{KEY_MANAGED_BY}=llmos,{KEY_INSTANCE}={cluster.options.instance}"
        self.namespaces = ClusterInformer(api, path_of("v1", "namespaces"), ours, requeue)
        self.contents = {
            kind: ClusterInformer(
                api, path_of(version, plural), f"{ours},{KEY_COMPONENT}=namespace", lambda key: requeue(("", key[0]))
            )
            for kind, (version, plural) in CONTENTS.items()
        }

    async def gone(self, key: Key) -> None:
        """Create the namespace shared by everybody, in which admins serve models, if it is missing."""
        if key == _PUBLIC and self._options.public:
            await self._make_public()

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    async def _make_public(self) -> None:
        body = make_namespace(PUBLIC_NAMESPACE, NamespaceOwner("platform", PUBLIC_NAMESPACE), self._options)
        try:
            await self._request("POST", path_of("v1", "namespaces"), body=body)
        except APIError as error:
            if error.status == 409:
                logger.warning('The cluster has a namespace "public" that is not this release\'s; it is left alone.')
            else:
                logger.warning("The namespace public can't be made: %s", error)
        except LLMOSError as error:
            logger.warning("The namespace public can't be made: %s", error)

    async def reconcile(self, there: Object) -> Result[Object]:
        """Bring a namespace and its contents to the wanted state.

        Raises
        ------
        Unavailable
            The cluster refuses, or does not answer.
        Conflict
            Another process leads now.
        """
        for informer in self.contents.values():
            await informer.synced.wait()
        try:
            await self._repair(there)
        except APIError as error:
            raise Unavailable(f"The cluster refuses: {error}.") from error
        return Result()

    async def _repair(self, there: Object) -> None:
        name, owner = there["metadata"]["name"], owner_of(there)
        if name == self._release or there["metadata"].get("deletionTimestamp"):
            return
        if owner is None:
            logger.warning("Namespace %s: it can't be told whose it is; it is left as it is", name)
            return
        wanted = make_contents(name, owner, self._release, self._options, await self._pull_secrets())
        repaired = KEY_PREPARED in (there["metadata"].get("annotations") or {})
        for obj in wanted:
            known = self.contents.get(obj["kind"])
            found = known.get((name, obj["metadata"]["name"])) if known is not None else None
            if found is not None and covers(found, obj):
                continue
            await self._apply(obj)
            if repaired and known is not None:
                logger.info("Namespace %s: put %s %s right", name, obj["kind"], obj["metadata"]["name"])
        await self._remove_others(name, wanted)
        whole = make_namespace(name, owner, self._options)
        whole["metadata"]["annotations"][KEY_PREPARED] = contents_hash(wanted)
        if not covers(there, whole):
            await self._apply(whole)

    async def _remove_others(self, namespace: str, wanted: list[dict[str, Any]]) -> None:
        """Delete objects of earlier settings: rights that are no longer set must not remain."""
        names = {(obj["kind"], obj["metadata"]["name"]) for obj in wanted}
        for kind, informer in self.contents.items():
            version, plural = CONTENTS[kind]
            for obj in informer.within(namespace):
                name = obj["metadata"]["name"]
                if (kind, name) in names or obj["metadata"].get("deletionTimestamp"):
                    continue
                logger.info("Namespace %s: removing %s %s, which is no longer set", namespace, kind, name)
                try:
                    await self._request("DELETE", path_of(version, plural, namespace, name))
                except APIError as error:
                    if error.status != 404:
                        raise

    async def _pull_secrets(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name in self._options.pull_secrets:
            secret = await self._api.find(path_of("v1", "secrets", self._release, name))
            if secret is not None:
                found[name] = secret
            else:
                logger.warning(
                    "The pull secret %s is not in %s; images of a private registry won't come", name, self._release
                )
        return found

    # Writes, only while leading

    async def _apply(self, obj: Object) -> None:
        self._check()
        answer = await self._api.apply(obj, object_path(obj))
        informer = self.namespaces if obj["kind"] == "Namespace" else self.contents.get(obj["kind"])
        if informer is not None:
            informer.written(answer)

    async def _request(self, method: str, path: str, *, body: Any = None) -> dict[str, Any]:
        self._check()
        return await self._api.request(method, path, body=body)

    def _check(self) -> None:
        require_leadership(leading=self._leading())


def namespace_controller(cluster: Cluster, queueing: Queueing | None = None) -> Controller[Object]:
    """Return the controller of a release's namespaces."""

    def requeue(key: Key) -> None:
        controller.enqueue(key)

    reconciler = NamespaceReconciler(cluster, requeue)
    controller = Controller(
        "namespace",
        reconciler.namespaces,
        reconciler,
        others=reconciler.contents.values(),
        keys=[_PUBLIC],
        queueing=queueing,
    )
    return controller
