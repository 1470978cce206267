"""Clean-up of notebook servers that the Hub no longer lists, after a warning.

A Hub that changes to another spawner while servers run (or loses its database) no longer routes to them: nobody can
use such a server, and nothing would ever stop it. A pod belongs to a listed server if it was created after that
server's start; an older pod is left over from an earlier start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from llmos.names import KEY_INSTANCE, KEY_KIND
from llmos.resources.base import utcnow
from llmos_hub.identity.people import HubPeople
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of

__all__ = ["ServerSweep"]

_NOTICE: Final = timedelta(minutes=10)
"""Time from the warning to the deletion: the Hub's change of spawner may still be in progress, or be reverted."""
_SKEW: Final = timedelta(minutes=2)
"""Tolerated difference between the Hub's clock and the cluster's. A pod that was created so shortly before the Hub's
server of the same name was started is taken for that server's: better it is left over than that one in use is stopped."""
_NAME: Final = "hub.jupyter.org/servername"

logger = logging.getLogger(__name__)


class ServerSweep:
    """A check for pods of servers that the Hub doesn't list.

    Parameters
    ----------
    api, people
        The cluster, and the Hub's list of servers.
    instance
        The release's name, a label of its pods.
    clock
        Returns the current time.
    """

    def __init__(
        self, api: KubernetesAPI, people: HubPeople, instance: str, *, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self._api = api
        self._people = people
        self._selector = f"{KEY_KIND}=Server,{KEY_INSTANCE}={instance}"
        self._clock = clock
        self._warned: dict[str, datetime] = {}

    async def look(self, namespace: str, person: str, check: Callable[[], None]) -> None:
        """Check a person's namespace once; `check` raises if another process leads.

        Raises
        ------
        Unavailable
            The Hub or the cluster does not answer.
        APIError
            The cluster refuses.
        """
        pages = self._api.list_pages(path_of("v1", "pods", namespace), params={"labelSelector": self._selector})
        pods = [pod async for page in pages for pod in page.get("items") or ()]
        if not pods:
            return
        listed = await self._people.servers(person)
        if listed is None:  # the Hub's configuration is from an older version, which doesn't return servers
            return
        now = self._clock()
        for pod in pods:
            meta = pod["metadata"]
            if _belongs(meta, listed) or meta.get("deletionTimestamp"):
                self._warned.pop(meta["uid"], None)
                continue
            since = self._warned.setdefault(meta["uid"], now)
            check()
            if since == now:
                await self._warn(meta, person)
            elif now - since >= _NOTICE:
                logger.warning("%s/%s is stopped: the Hub no longer lists it", namespace, meta["name"])
                body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": meta["uid"]}}
                try:
                    await self._api.request("DELETE", path_of("v1", "pods", namespace, meta["name"]), body=body)
                except APIError as error:
                    if error.status not in (404, 409):
                        raise

    async def _warn(self, meta: Mapping[str, Any], person: str) -> None:
        namespace, minutes = meta["namespace"], _NOTICE.total_seconds() / 60
        message = (
            f"The Hub no longer lists this server of {person}, so nobody reaches it: it is stopped in {minutes:.0f} minutes. "
            "The home stays."
        )
        logger.warning("%s/%s: %s", namespace, meta["name"], message)
        stamp = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": meta["name"], "uid": meta["uid"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{int(self._clock().timestamp() * 1e6):x}", "namespace": namespace},
            "involvedObject": about,
            "type": "Warning",
            "reason": "NotListed",
            "message": message,
            "source": {"component": "llmos"},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        await self._api.request("POST", path_of("v1", "events", namespace), body=event)


def _belongs(meta: Mapping[str, Any], listed: Mapping[str, str]) -> bool:
    """Return whether a pod belongs to a server that the Hub lists."""
    started = listed.get((meta.get("annotations") or {}).get(_NAME, ""))
    if started is None:
        return False
    try:
        return datetime.fromisoformat(meta["creationTimestamp"]) + _SKEW >= datetime.fromisoformat(started)
    except (TypeError, ValueError):
        return True
