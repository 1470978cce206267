"""Logs of a workload's pods, for the backend's process and any other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from llmos.errors import LLMOSError, NotFound, Unavailable
from llmos_hub.backends.kubernetes.names import container_name, workload_selector
from llmos_hub.backends.kubernetes.states import init_running, main_status, role_of
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.tasks import cancel
from llmos_hub.workload import WorkloadRef

__all__ = ["read_log", "read_logs"]

_POLL: Final = 1.0
"""Seconds between checks for new pods while following logs."""
_LINE: Final = 16384
"""Maximum characters of a line; the rest is cut off."""
_IDLE: Final = 3600.0
"""Seconds without a line after which the connection of a followed log is opened again."""

Pod = Mapping[str, Any]


async def read_logs(
    api: KubernetesAPI,
    ref: WorkloadRef,
    *,
    replica: str | None = None,
    tail: int | None = 200,
    follow: bool = False,
    exists: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncGenerator[str, None]:
    """Yield lines of the pods' logs, without line ends; see `llmos_hub.backends.base.Backend.logs`.

    Parameters
    ----------
    exists
        Returns whether the workload (still) exists; by default, whether it has a Deployment or Job.

    Raises
    ------
    NotFound
        The workload or replica doesn't exist.
    """

    async def there() -> bool:
        return await (exists() if exists is not None else _has_owner(api, ref))

    pods = await _pods(api, ref, replica)
    if not pods and (replica is not None or not await there()):
        raise NotFound(f"There is no log of {replica or ref.name}.")
    if not follow:
        for pod in pods:
            async for line in read_log(api, pod, tail=tail):
                yield line
        return
    async with contextlib.aclosing(_follow(api, ref, replica, tail, there)) as lines:
        async for line in lines:
            yield line


async def _has_owner(api: KubernetesAPI, ref: WorkloadRef) -> bool:
    params = {"labelSelector": workload_selector(ref), "limit": "1"}
    for version, plural in (("apps/v1", "deployments"), ("batch/v1", "jobs")):
        if (await api.request("GET", path_of(version, plural, ref.namespace), params=params)).get("items"):
            return True
    return False


async def _pods(api: KubernetesAPI, ref: WorkloadRef, replica: str | None) -> list[Pod]:
    """Return the workload's pods, the oldest first."""
    params = {"labelSelector": workload_selector(ref)}
    found = await api.request("GET", path_of("v1", "pods", ref.namespace), params=params)
    pods = [pod for pod in found.get("items") or () if replica in (None, pod["metadata"]["name"])]
    return sorted(pods, key=lambda pod: (role_of(pod), pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _container(pod: Pod) -> str:
    """Return the container whose log is shown: the main one, or an init container that runs or has failed."""
    if (before := init_running(pod)) is not None:
        return before
    for status in pod["status"].get("initContainerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return str(status["name"])
    name = container_name(role_of(pod))
    names = [container["name"] for container in pod["spec"]["containers"]]
    return name if name in names else str(names[0])


async def read_log(
    api: KubernetesAPI, pod: Pod, *, container: str = "", tail: int | None = None, follow: bool = False
) -> AsyncIterator[str]:
    """Yield the lines of one container's log; none if it hasn't run yet."""
    meta = pod["metadata"]
    params = {"container": container or _container(pod)}
    if tail is not None:
        params["tailLines"] = str(tail)
    if follow:
        params["follow"] = "true"
    path = path_of("v1", "pods", meta["namespace"], meta["name"], "log")
    try:
        async with api.lines(path, params=params, idle=_IDLE if follow else api.timeout) as lines:
            async for line in lines:
                yield _text(line)
    except APIError as error:
        if error.status not in (400, 404):  # it hasn't started, or was deleted
            raise Unavailable(f"The log of {meta['name']} can't be read: {error.message}") from None


def _text(line: bytes) -> str:
    text = line.rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="replace")
    return text if len(text) <= _LINE else f"{text[:_LINE]} …"


# Following


def _life(pod: Pod) -> tuple[str, str, int]:
    """Return the key of one log: a pod's container and its number of restarts."""
    statuses = pod["status"].get("initContainerStatuses") or () if init_running(pod) else ()
    status = next(iter(statuses), None) or main_status(pod)
    return pod["metadata"]["uid"], _container(pod), int(status.get("restartCount", 0))


def _has_started(pod: Pod) -> bool:
    state = main_status(pod).get("state") or {}
    return init_running(pod) is not None or "running" in state or "terminated" in state


async def _follow(
    api: KubernetesAPI, ref: WorkloadRef, replica: str | None, tail: int | None, there: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[str, None]:
    """Yield the lines of all pods as they come, also of new pods, until all have ended."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)
    tasks: dict[tuple[str, str, int], asyncio.Task[None]] = {}

    async def copy(pod: Pod, tail: int | None) -> None:
        with contextlib.suppress(LLMOSError):  # after an error `look` attaches to it again
            async for line in read_log(api, pod, tail=tail, follow=True):
                await queue.put(line)

    async def look() -> None:
        """Attach to each container that has started, until all pods have ended."""
        first = True
        while True:
            pods = await _pods(api, ref, replica)
            for pod in pods:
                if _has_started(pod) and _life(pod) not in tasks:
                    tasks[_life(pod)] = asyncio.create_task(copy(pod, tail if first else None))
            first = False
            if all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in pods) and (
                pods or replica is not None or not await there()
            ):
                await asyncio.gather(*tasks.values())
                await queue.put(None)
                return
            await asyncio.sleep(_POLL)

    looking = asyncio.create_task(look())
    try:
        while True:
            taken = asyncio.ensure_future(queue.get())
            await asyncio.wait({taken, looking}, return_when=asyncio.FIRST_COMPLETED)
            if not taken.done() and looking.done() and looking.exception() is not None:
                taken.cancel()
                looking.result()
            line = await taken
            if line is None:
                return
            yield line
    finally:
        await cancel(looking, *tasks.values())
