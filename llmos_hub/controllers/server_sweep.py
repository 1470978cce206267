"""Ends notebook servers that the Hub knows nothing of any more, late and with a warning.

A Hub that goes over to another spawner while servers run (or lost its database) no longer reaches them: nobody comes to
such a server, and nobody would ever stop it. A pod belongs to a server that the Hub lists if it was made after that
server's start; an older one was left by an earlier start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from llmos_hub.identity.people import People
from llmos_hub.kubernetes_api import APIError, KubernetesAPI, path_of

__all__ = ["ServerSweep"]

_NOTICE: Final = timedelta(minutes=10)
"""From the warning to the end: the Hub may be on its way between two spawners, or back."""
_SKEW: Final = timedelta(minutes=2)
"""Between the Hub's clock and the cluster's."""
_NAME: Final = "hub.jupyter.org/servername"

logger = logging.getLogger(__name__)


class ServerSweep:
    """Finds pods of servers without a Hub.

    Parameters
    ----------
    api, people
        The cluster, and the Hub's list of servers.
    instance
        The release's name, as its pods have it.
    clock
        Now.
    """

    def __init__(self, api: KubernetesAPI, people: People, instance: str, *, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._people = people
        self._selector = f"llmos.ai/kind=Server,app.kubernetes.io/instance={instance}"
        self._clock = clock
        self._warned: dict[str, datetime] = {}

    async def look(self, namespace: str, person: str, check: Callable[[], None]) -> None:
        """Look at a person's namespace once; `check` raises where another process leads.

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
        if listed is None:  # the Hub doesn't tell: its configuration is older than this
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
    """Whether a pod is that of a server that the Hub lists."""
    started = listed.get((meta.get("annotations") or {}).get(_NAME, ""))
    if started is None:
        return False
    try:
        return datetime.fromisoformat(meta["creationTimestamp"]) + _SKEW >= datetime.fromisoformat(started)
    except (TypeError, ValueError):
        return True
