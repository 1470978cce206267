"""Polling of data that can't be watched: memory usage, and the progress of downloads at a pod's start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmos.errors import LLMOSError
from llmos.resources.quantities import format_bytes, parse_quantity
from llmos_hub.backends.kubernetes.logs import read_log
from llmos_hub.backends.kubernetes.names import ref_of, release_selector
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.states import init_running
from llmos_hub.backends.reports import make_report
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.workload import WorkloadRef

__all__ = ["MEMORY_PERIOD", "Polls", "progress_words"]

MEMORY_PERIOD: Final = 15.0
"""Seconds between reads of memory usage, as often as metrics-server updates it."""
_NO_METRICS: Final = 300.0
"""Seconds between attempts if the cluster has no metrics."""
_FORBIDDEN, _NOT_FOUND = 403, 404
_PROGRESS: Final = 2.0
_MOST: Final = 20
"""Maximum number of logs read concurrently."""
_METRICS: Final = "/apis/metrics.k8s.io/v1beta1/pods"

logger = logging.getLogger(__name__)


def progress_words(lines: list[str]) -> str:
    """Return the last progress in the lines of a download's log, as text; empty if there is none.

    >>> progress_words(['{"type": "progress", "file": "a.gguf", "done": 1200000, "total": 2500000, "rate": 58000000}'])
    'a.gguf, 1.2 MB of 2.5 MB at 58 MB/s.'
    """
    progress = make_report(lines).progress
    if progress is None:
        return ""
    of = f" of {format_bytes(progress.total, binary=False)}" if progress.total else ""
    speed = f" at {format_bytes(progress.rate, binary=False)}/s" if progress.rate else ""
    return f"{progress.file}, {format_bytes(progress.done, binary=False)}{of}{speed}."


class Polls:
    """Periodic reads of memory usage and download progress.

    Parameters
    ----------
    pods
        All pods, by namespace and name.
    changed
        Called with the workload of a pod whose data changed.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        settings: KubernetesSettings,
        pods: Mapping[tuple[str, str], dict[str, Any]],
        changed: Callable[[WorkloadRef], None],
    ) -> None:
        self.memory: dict[tuple[str, str], int] = {}
        """Memory usage in bytes, by the pod's namespace and name."""
        self.progress: dict[str, str] = {}
        """Progress of a download as text, by the pod's uid."""
        self._api = api
        self._settings = settings
        self._pods = pods
        self._changed = changed
        self._missing = False

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_memory())
            group.create_task(self._poll_progress())

    async def _poll_memory(self) -> None:
        while True:
            pause = await self.look_at_memory() if self._pods else MEMORY_PERIOD
            await asyncio.sleep(pause)

    async def look_at_memory(self) -> float:
        """Read memory usage if possible, and return the seconds until the next read."""
        try:
            await self._read_memory()
        except APIError as error:
            why = "the cluster has no metrics-server" if error.status == _NOT_FOUND else error.message.rstrip(".")
            self._say_missing(why)
            return _NO_METRICS if error.status in (_FORBIDDEN, _NOT_FOUND) else MEMORY_PERIOD
        except LLMOSError as error:
            self._say_missing(error.message.rstrip("."))
            return MEMORY_PERIOD
        if self._missing:
            self._missing = False
            logger.info("Memory in use is shown again.")
        return MEMORY_PERIOD

    def _say_missing(self, why: str) -> None:
        if not self._missing:  # logged only once: a missing metrics-server is not an error
            self._missing = True
            logger.info("Memory in use is not shown: %s.", why)

    async def _read_memory(self) -> None:
        params = {"labelSelector": release_selector(self._settings)}
        answer = await self._api.request("GET", _METRICS, params=params)
        now: dict[tuple[str, str], int] = {}
        for item in answer.get("items") or ():
            used = 0
            for container in item.get("containers") or ():
                with contextlib.suppress(ValueError, KeyError):
                    used += int(parse_quantity(container["usage"]["memory"]))
            now[item["metadata"]["namespace"], item["metadata"]["name"]] = used
        news = {key for key in {*now, *self.memory} if now.get(key) != self.memory.get(key)}
        self.memory.clear()
        self.memory.update(now)
        self._tell(news)

    def _tell(self, keys: set[tuple[str, str]]) -> None:
        pods = [self._pods[key] for key in keys if key in self._pods]
        for ref in {ref_of(pod["metadata"]) for pod in pods}:
            if ref is not None:
                self._changed(ref)

    async def _poll_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS)
            fetching = {key: pod for key, pod in self._pods.items() if init_running(pod) == "fetch"}
            uids = {pod["metadata"]["uid"] for pod in fetching.values()}
            for uid in [uid for uid in self.progress if uid not in uids]:
                del self.progress[uid]
            some = list(fetching.items())[:_MOST]
            found = await asyncio.gather(*(self._read_progress(pod) for _, pod in some))
            news = set()
            for (key, pod), words in zip(some, found, strict=True):
                uid = pod["metadata"]["uid"]
                if words and self.progress.get(uid) != words:
                    self.progress[uid] = words
                    news.add(key)
            self._tell(news)

    async def _read_progress(self, pod: dict[str, Any]) -> str:
        lines = []
        with contextlib.suppress(LLMOSError, TimeoutError):
            async with asyncio.timeout(_PROGRESS * 2):
                lines = [line async for line in read_log(self._api, pod, container="fetch", tail=5)]
        return progress_words(lines)
