"""Downloads of models through jobs of a backend, with the progress that the jobs report.

The state of a download is only in the backend (the job, its labels, its log), so that another
controller process can continue it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from llmos.errors import Invalid
from llmos.resources import ModelService
from llmos.resources.base import condition
from llmos.resources.workload import DownloadProgress
from llmos_hub.backends.base import Backend
from llmos_hub.backends.reports import is_report
from llmos_hub.controllers.layout import Layout
from llmos_hub.controllers.modelservice.workloads import (
    FETCH,
    cache_directory,
    fetch_secrets_digest,
    fetch_source,
    make_fetch,
    make_ref,
)
from llmos_hub.names import KEY_ATTEMPT, KEY_GENERATION, KEY_SECRETS, KEY_SOURCE
from llmos_hub.sources.base import FetchProgress, ModelFiles
from llmos_hub.workload import Mount, Observation, ReplicaState, WorkloadRef

__all__ = ["DOWNLOAD_FAILED", "Download", "Downloads", "retry_delay"]

DOWNLOAD_FAILED = "DownloadFailed"
"""The reason in condition ``Downloaded`` while waiting for the next attempt."""
_MESSAGE = 2000
"""Maximum characters of an error message: it is stored in the status."""
_FRESH = timedelta(seconds=10)
"""A model missing within this time after its download counts as a failed download, not as an emptied cache."""


@dataclass(frozen=True, slots=True)
class Download:
    """The state of a model's download.

    Attributes
    ----------
    state
        State of the job.
    progress
        Progress in bytes, while it runs.
    files
        The downloaded model.
    code, message
        The error, for programs and for people.
    attempt
        Number of the attempt.
    retry_at
        Time of the next attempt after an error; None if another attempt would not help.
    log_lines
        The last log lines before it failed.
    """

    state: Literal["Running", "Done", "Failed"]
    progress: DownloadProgress | None = None
    files: ModelFiles | None = None
    code: str = ""
    message: str = ""
    attempt: int = 1
    retry_at: datetime | None = None
    log_lines: tuple[str, ...] = ()


def retry_delay(attempt: int) -> float:
    """Return the seconds to wait after that many attempts, so that an unavailable server is not called every second.

    >>> [retry_delay(n) for n in (1, 2, 3, 6, 100)]
    [10.0, 20.0, 40.0, 300.0, 300.0]
    """
    return min(300.0, 10.0 * 2.0 ** min(attempt - 1, 10))


class Downloads:
    """The fetch jobs of ModelServices.

    Parameters
    ----------
    backend
        The backend that runs the jobs.
    layout
        The place of the model cache for the jobs.
    environment
        The variables of the platform's environment that the jobs get.
    """

    def __init__(self, backend: Backend, layout: Layout, environment: Mapping[str, str]) -> None:
        self._backend = backend
        self._layout = layout
        self._environment = environment
        self._done: dict[WorkloadRef, tuple[str, ModelFiles]] = {}  # with the id of the job's replica

    async def look(
        self, service: ModelService, secrets: Mapping[str, str], now: datetime, mounts: Mapping[str, Mount]
    ) -> Download:
        """Start the download unless it is done or running, and return its state."""
        directory = cache_directory(service, self._layout)
        seen = await self._backend.observe(make_ref(service, FETCH))
        if seen is None or seen.labels.get(KEY_SOURCE) != fetch_source(service, directory, mounts):
            return await self._start(service, directory, secrets, mounts, attempt=1)
        attempt = _attempt(seen)
        job = _newest(seen)
        if job is None or job.phase == "Waiting":
            # not started yet, or waiting for memory or its secrets; applying it again passes the secrets
            download = await self._start(service, directory, secrets, mounts, attempt=attempt)
            return download if job is None else _waiting(download, job)
        if job.phase == "Succeeded":
            files = await self._files(seen.ref, job)
            if files is not None and await self._there(files):
                return Download("Done", files=files, attempt=attempt)
            self._done.pop(seen.ref, None)
            if job.started_at is None or now - job.started_at > _FRESH:  # the cache was emptied
                return await self._start(service, directory, secrets, mounts, attempt=attempt + 1)
            return await self._failed(service, seen, job, secrets, now, mounts=mounts)
        if job.phase == "Failed":
            return await self._failed(service, seen, job, secrets, now, mounts=mounts)
        report = await self._backend.progress(seen.ref, replica=job.id)
        return Download("Running", progress=_progress(report.progress), message=report.info, attempt=attempt)

    async def _there(self, files: ModelFiles) -> bool:
        """Return whether the files still exist; True if they aren't visible here, as replicas fetch missing files."""
        # in a thread: it may be a network disk
        return self._layout.per_namespace or await asyncio.to_thread(Path(files.path).exists)

    def forget(self, ref: WorkloadRef) -> None:
        """Drop what is cached for a deleted workload."""
        self._done.pop(ref, None)

    async def _start(
        self,
        service: ModelService,
        directory: Path,
        secrets: Mapping[str, str],
        mounts: Mapping[str, Mount],
        *,
        attempt: int,
    ) -> Download:
        job = make_fetch(
            service,
            directory,
            self._layout,
            attempt=attempt,
            environment=self._environment,
            secrets=secrets,
            mounts=mounts,
        )
        await self._backend.apply(job)
        return Download("Running", attempt=attempt)

    async def _failed(
        self,
        service: ModelService,
        seen: Observation,
        job: ReplicaState,
        secrets: Mapping[str, str],
        now: datetime,
        *,
        mounts: Mapping[str, Mount],
    ) -> Download:
        attempt = _attempt(seen)
        directory = cache_directory(service, self._layout)
        if seen.labels.get(KEY_GENERATION) != str(service.metadata.generation) or seen.labels.get(
            KEY_SECRETS
        ) != fetch_secrets_digest(service, secrets):
            return await self._start(service, directory, secrets, mounts, attempt=1)
        known = condition(service.status.conditions, "Downloaded")
        since = known.last_transition_time if known is not None and known.reason == DOWNLOAD_FAILED else now
        report = await self._backend.progress(seen.ref, replica=job.id)
        # a file that is no valid model won't become one by another attempt; a changed spec is started above
        retry_at = None if report.code == Invalid.code else since + timedelta(seconds=retry_delay(attempt))
        if retry_at is not None and now >= retry_at:
            return await self._start(service, directory, secrets, mounts, attempt=attempt + 1)
        message = report.message or job.message or "The download has ended, but what it fetched is not there."
        return Download(
            "Failed",
            code=report.code or job.reason,
            message=message[:_MESSAGE],
            attempt=attempt,
            retry_at=retry_at,
            # the backend has removed secrets from them
            log_lines=tuple(line for line in job.last_log_lines if not is_report(line)),
        )

    async def _files(self, ref: WorkloadRef, job: ReplicaState) -> ModelFiles | None:
        known = self._done.get(ref)
        if known is not None and known[0] == job.id:
            return known[1]
        files = (await self._backend.progress(ref, replica=job.id)).files
        if files is not None:
            self._done[ref] = (job.id, files)
        return files


def _progress(reported: FetchProgress | None) -> DownloadProgress | None:
    if reported is None:
        return None
    return DownloadProgress(file=reported.file, done=reported.done, total=reported.total, rate=reported.rate)


def _attempt(seen: Observation) -> int:
    text = seen.labels.get(KEY_ATTEMPT, "1")
    return int(text) if text.isdecimal() else 1


def _newest(seen: Observation) -> ReplicaState | None:
    """Return the job's current replica, not one that is being replaced."""
    running = [replica for replica in seen.replicas if replica.phase != "Stopping"]
    return running[-1] if running else None


def _waiting(download: Download, job: ReplicaState) -> Download:
    return Download(download.state, message=job.message, attempt=download.attempt)
