"""The controller of people's and groups' namespaces in a cluster: fills, repairs and cleans them.

The objects are those of `llmos_hub.managers.namespace_objects`. It is level-triggered like every controller: on any
change of a namespace or of our objects in it, the whole namespace is compared, and differing objects are applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from llmos.errors import LLMOSError
from llmos_hub.controllers.cluster_informer import ClusterInformer, Object, covers
from llmos_hub.controllers.fencing import require_leadership
from llmos_hub.controllers.workqueue import QueueMetrics, ShutDown, WorkQueue
from llmos_hub.kubernetes_api import APIError, KubernetesAPI, path_of
from llmos_hub.managers.namespace_objects import Owner, contents_hash, make_contents, make_namespace, object_path
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.names import (
    KEY_COMPONENT,
    KEY_INSTANCE,
    KEY_MANAGED_BY,
    KEY_OWNER,
    KEY_OWNER_CREATED,
    KEY_OWNER_KIND,
    KEY_PREPARED,
    PUBLIC_NAMESPACE,
    group_namespace,
    user_namespace,
)

__all__ = ["CONTENTS", "NamespaceController", "owner_of"]

CONTENTS: Final = {
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "LimitRange": ("v1", "limitranges"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
}
"""The kinds watched in all namespaces. Secrets are not: their contents would be kept in memory."""

_WORKERS: Final = 16
"""Namespaces reconciled concurrently: a busy API server takes tens of milliseconds for each of ten requests."""
_RESYNC: Final = 600.0
"""Seconds between reconciles of all namespaces; also the delay until a changed pull secret is copied."""
_TIMEOUT: Final = 60.0

logger = logging.getLogger(__name__)


class Sweeper(Protocol):
    """A clean-up after deleted owners; `llmos_hub.controllers.namespace_sweep.Sweep`."""

    async def run(self, namespaces: Callable[[], list[Object]]) -> None:
        """Check all namespaces periodically until cancelled."""
        ...


def owner_of(obj: Object) -> Owner | None:
    """Return the owner of a namespace; None if it isn't one of ours, or the owner is unknown."""
    labels, annotations = obj["metadata"].get("labels") or {}, obj["metadata"].get("annotations") or {}
    kind, name = labels.get(KEY_OWNER_KIND), annotations.get(KEY_OWNER, "")
    if labels.get(KEY_MANAGED_BY) != "llmos" or kind not in ("user", "group", "platform"):
        return None
    if not name:  # the annotation was removed; a simple name can be derived from the namespace's
        name = obj["metadata"]["name"].removeprefix(f"{kind}-")
        made = user_namespace(name) if kind == "user" else group_namespace(name) if kind == "group" else name
        if made != obj["metadata"]["name"]:
            return None
    return Owner(kind, name, annotations.get(KEY_OWNER_CREATED, ""))


class NamespaceController:
    """The controller of all namespaces of one release.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    options
        The settings of namespaces.
    release
        The release's own namespace, which is never touched.
    leading
        Returns whether this process may write.
    sweeper
        Cleans up after deleted owners.
    metrics, failed
        The metrics of the queue; called with an error's code for each reconcile that raised.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        options: NamespaceOptions,
        release: str,
        *,
        leading: Callable[[], bool],
        sweeper: Sweeper | None = None,
        metrics: QueueMetrics | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        self._api = api
        self._options = options
        self._release = release
        self._leading = leading
        self._sweeper = sweeper
        self._metrics = metrics
        self._failed = failed
        self._queue: WorkQueue[str] | None = None
        ours = f"{KEY_MANAGED_BY}=llmos,{KEY_INSTANCE}={options.instance}"
        self._namespaces = ClusterInformer(api, path_of("v1", "namespaces"), ours, lambda key: self._add(key[1]))
        self._contents = {
            kind: ClusterInformer(
                api, path_of(version, plural), f"{ours},{KEY_COMPONENT}=namespace", lambda key: self._add(key[0])
            )
            for kind, (version, plural) in CONTENTS.items()
        }

    def _add(self, namespace: str) -> None:
        if self._queue is not None:
            self._queue.add(namespace)

    async def follow(self) -> None:
        """Keep the local copies up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in (self._namespaces, *self._contents.values()):
                group.create_task(informer.run())

    async def work(self) -> None:
        """Fill, repair and clean until cancelled."""
        for informer in (self._namespaces, *self._contents.values()):
            await informer.synced.wait()
        queue = self._queue = WorkQueue(metrics=self._metrics)
        workers = [asyncio.create_task(self._work(queue), name=f"namespaces-{n}") for n in range(_WORKERS)]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look_at_all())
                if self._sweeper is not None:
                    group.create_task(self._sweeper.run(self.ours))
        finally:
            self._queue = None
            queue.shut_down()
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def ours(self) -> list[Object]:
        """Return the release's namespaces."""
        found = (self._namespaces.get(key) for key in self._namespaces)
        return [obj for obj in found if obj is not None and owner_of(obj) is not None]

    async def _look_at_all(self) -> None:
        while True:
            if self._options.public and self._namespaces.get(("", PUBLIC_NAMESPACE)) is None:
                await self._make_public()
            for _, name in self._namespaces:
                self._add(name)
            await asyncio.sleep(_RESYNC)

    async def _make_public(self) -> None:
        """Create the namespace shared by everybody, in which admins serve models."""
        body = make_namespace(PUBLIC_NAMESPACE, Owner("platform", PUBLIC_NAMESPACE), self._options)
        try:
            await self._request("POST", path_of("v1", "namespaces"), body=body)
        except APIError as error:
            if error.status == 409:
                logger.warning('The cluster has a namespace "public" that is not this release\'s; it is left alone.')
            else:
                logger.warning("The namespace public can't be made: %s", error)
        except LLMOSError as error:
            logger.warning("The namespace public can't be made: %s", error)

    async def _work(self, queue: WorkQueue[str]) -> None:
        with contextlib.suppress(ShutDown):
            while True:
                name = await queue.get()
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        await self.reconcile(name)
                except Exception as error:  # noqa: BLE001 - one namespace must not end the work for all; it is logged
                    if self._failed is not None:
                        self._failed(error.code if isinstance(error, LLMOSError) else "cluster")
                    delay = queue.retry(name)
                    logger.warning("Namespace %s: %s. Trying again in %.1f s", name, error, delay)
                else:
                    queue.forget(name)
                finally:
                    queue.done(name)

    async def reconcile(self, name: str) -> None:
        """Bring a namespace and its contents to the wanted state.

        Raises
        ------
        APIError, Unavailable
            The cluster refuses, or does not answer.
        Conflict
            Another process leads now.
        """
        there = self._namespaces.get(("", name))
        owner = owner_of(there) if there is not None else None
        if there is None or name == self._release or there["metadata"].get("deletionTimestamp"):
            return
        if owner is None:
            logger.warning("Namespace %s: it can't be told whose it is; it is left as it is", name)
            return
        wanted = make_contents(name, owner, self._release, self._options, await self._pull_secrets())
        repaired = KEY_PREPARED in (there["metadata"].get("annotations") or {})
        for obj in wanted:
            known = self._contents.get(obj["kind"])
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
        for kind, informer in self._contents.items():
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
            try:
                found[name] = await self._api.request("GET", path_of("v1", "secrets", self._release, name))
            except APIError as error:
                if error.status != 404:
                    raise
                logger.warning(
                    "The pull secret %s is not in %s; images of a private registry won't come", name, self._release
                )
        return found

    # Writes, only while leading

    async def _apply(self, obj: Object) -> None:
        self._check()
        answer = await self._api.apply(obj, object_path(obj))
        informer = self._namespaces if obj["kind"] == "Namespace" else self._contents.get(obj["kind"])
        if informer is not None:
            informer.take(answer)

    async def _request(self, method: str, path: str, *, body: Any = None) -> dict[str, Any]:
        self._check()
        return await self._api.request(method, path, body=body)

    def _check(self) -> None:
        require_leadership(leading=self._leading())
