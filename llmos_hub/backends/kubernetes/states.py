"""The state of one pod as a replica; pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from llmos.resources.quantities import parse_quantity
from llmos_hub.backends.failures import (
    Failure,
    crashed,
    exit_words,
    killed_by_kernel,
    not_ready_in_time,
    out_of_memory,
    unhealthy,
)
from llmos_hub.backends.kubernetes.names import container_name
from llmos_hub.backends.kubernetes.reasons import (
    image_pull,
    not_mounted,
    probe_failing,
    start_failed,
    unschedulable,
)
from llmos_hub.names import KEY_ROLE, KEY_TEMPLATE
from llmos_hub.processes.running import Exit
from llmos_hub.workload import ReplicaState

__all__ = ["Notice", "Object", "PodReader", "init_running", "main_status", "role_of"]

Object = Mapping[str, Any]

_IMAGE: Final = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_BACK_OFF: Final = re.compile(r"back-off (?:(\d+)m)?(?:(\d+)s)? restarting")
_LOG_LINES: Final = 20
_KILLS: Final = (137, 143)


@dataclass(frozen=True, slots=True)
class Notice:
    """The used parts of an Event of type Warning."""

    reason: str
    message: str
    at: str = ""


def role_of(obj: Object) -> str:
    """Return the role that an object belongs to."""
    return str((obj["metadata"].get("labels") or {}).get(KEY_ROLE, ""))


def init_running(pod: Object) -> str | None:
    """Return the name of the running init container; None if there is none."""
    for status in pod["status"].get("initContainerStatuses") or ():
        if "running" in (status.get("state") or {}):
            return str(status["name"])
    return None


def main_status(pod: Object) -> Object:
    """Return the status of the pod's main container."""
    name = container_name(role_of(pod))
    statuses = pod["status"].get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == name), statuses[0] if statuses else {})


def _state(status: Object, name: str, part: str = "state") -> Object:
    """Return the details of a container's state (or ``lastState``), such as ``terminated``; empty in another state."""
    return (status.get(part) or {}).get(name) or {}


def _failed(base: ReplicaState, failure: Failure, **fields: Any) -> ReplicaState:
    return replace(base, reason=failure.reason, message=failure.message, **fields)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


class PodReader:
    """A reader of one pod's state."""

    def __init__(self, name: str, pod: Object, warnings: Sequence[Notice], port: int) -> None:
        self.name = name
        self.pod = pod
        self.status: Object = pod["status"]
        self.conditions = {c["type"]: c for c in self.status.get("conditions") or ()}
        self.warnings = warnings
        self.port = port
        self.main = main_status(pod)
        self.container = next(
            (c for c in pod["spec"].get("containers", ()) if c["name"] == self.main.get("name")),
            pod["spec"]["containers"][0],
        )

    def state(self) -> ReplicaState:
        """Return the state, without role and index."""
        meta = self.pod["metadata"]
        running = _state(self.main, "running")
        base = ReplicaState(
            id=meta["name"],
            role="",
            index=0,
            phase="Starting",
            template=str((meta.get("labels") or {}).get(KEY_TEMPLATE, "")),
            started_at=_time(running.get("startedAt")),
            restarts=int(self.main.get("restartCount", 0)),
            memory_limit=self._memory_limit(),
        )
        phase = self.status.get("phase")
        if phase in ("Succeeded", "Failed"):
            return self._over(base, succeeded=phase == "Succeeded")
        if running:
            return self._running(base)
        for read in (self._unplaced, self._initializing, self._ended):
            if (found := read(base)) is not None:
                return found
        return self._waiting(base)

    # Running pods

    def _running(self, base: ReplicaState) -> ReplicaState:
        ready = self.conditions.get("Ready", {})
        since = _time(ready.get("lastTransitionTime"))
        address = self.status.get("podIP")
        if self.pod["spec"].get("restartPolicy") == "Never":
            return base  # a job
        if ready.get("status") == "True" and address:
            host = f"[{address}]" if ":" in address else address
            return replace(base, phase="Ready", endpoint=f"http://{host}:{self.port}", ready_at=since)
        if self.main.get("ready"):
            node = self.pod["spec"].get("nodeName", "its machine")
            message = f"{self.name} can't be reached: the machine {node} doesn't answer. It is started on another soon."
            return replace(base, phase="NotReady", reason="NodeLost", message=message)
        started = base.started_at
        if self.main.get("started") and since is not None and started is not None and since > started:
            said = [w.message for w in self.warnings if w.message.startswith("Readiness")]
            return _failed(base, probe_failing(self.name, said), phase="NotReady")
        if base.restarts:
            return _failed(base, self._failure(_state(self.main, "terminated", "lastState")))
        return base

    # Waiting pods

    def _unplaced(self, base: ReplicaState) -> ReplicaState | None:
        placed = self.conditions.get("PodScheduled", {})
        if placed.get("status") != "False":
            return None
        failure = unschedulable(self.name, placed.get("message", ""), self._requests())
        return _failed(base, failure, phase="Waiting")

    def _initializing(self, base: ReplicaState) -> ReplicaState | None:
        for status in self.status.get("initContainerStatuses") or ():
            ended, waiting = _state(status, "terminated"), _state(status, "waiting")
            if ended.get("exitCode") == 0:
                continue
            what = "fetching its model" if status["name"] == "fetch" else f"running {status['name']}"
            if "running" in (status.get("state") or {}):
                return replace(base, reason="Initializing", message=f"{self.name} is {what}.")
            if ended := ended or _state(status, "terminated", "lastState"):
                words = exit_words(Exit.from_shell(int(ended.get("exitCode", 1))))
                return replace(
                    base,
                    phase="Waiting",
                    reason="Crashed",
                    message=f"{self.name} can't start: {what} failed: {words}. See why: llmos logs {self.name}",
                    exit_code=ended.get("exitCode"),
                    restarts=int(status.get("restartCount", 0)) + 1,
                    retry_at=_retry_at(ended, waiting),
                    last_log_lines=_lines(ended),
                )
            if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
                return self._waiting(base, status)
        return None

    def _ended(self, base: ReplicaState) -> ReplicaState | None:
        ended, waiting = _state(self.main, "terminated"), _state(self.main, "waiting")
        if not ended and waiting.get("reason") in ("CrashLoopBackOff", "RunContainerError", "CreateContainerError"):
            ended = _state(self.main, "terminated", "lastState")
        if not ended:
            return None
        if self.pod["spec"].get("restartPolicy") == "Never":  # a job: the pod's own phase follows a moment later
            return self._over(base, succeeded=ended.get("exitCode") == 0)
        return _failed(
            base,
            self._failure(ended),
            phase="Waiting",
            exit_code=ended.get("exitCode"),
            restarts=base.restarts + 1,
            retry_at=_retry_at(ended, waiting),
            last_log_lines=_lines(ended) if ended.get("reason") != "StartError" else (),
        )

    def _waiting(self, base: ReplicaState, status: Object | None = None) -> ReplicaState:
        status = self.main if status is None else status
        waiting = _state(status, "waiting")
        reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if reason in _IMAGE:
            failure = image_pull(self.name, reason, str(status.get("image", "")), self._pull_message(message))
        elif reason in ("", "ContainerCreating", "PodInitializing"):
            mounts = [w.message for w in self.warnings if w.reason in ("FailedMount", "FailedAttachVolume")]
            if not mounts:
                return base
            return _failed(base, not_mounted(self.name, mounts[0]))
        else:
            failure = start_failed(self.name, self._program(), message or reason)
        return _failed(base, failure, phase="Waiting")

    def _pull_message(self, message: str) -> str:
        """Return the message with the reason, which is the first one: later ones only report the back-off."""
        said = [w.message for w in self.warnings if w.message.startswith("Failed to pull")]
        return said[0] if said and message.startswith("Back-off") else message

    # Ended pods

    def _over(self, base: ReplicaState, *, succeeded: bool) -> ReplicaState:
        ended = _state(self.main, "terminated")
        base = replace(
            base, phase="Succeeded" if succeeded else "Failed", started_at=_time(ended.get("startedAt")), restarts=0
        )
        if succeeded:
            return replace(base, exit_code=0)
        if self.status.get("reason") == "Evicted" or not ended:
            why = self.status.get("message") or "its machine was lost"
            return replace(base, reason="Evicted", message=f"{self.name} was ended by the cluster: {why}")
        return _failed(
            base,
            self._failure(ended, completes=True),
            exit_code=ended.get("exitCode"),
            last_log_lines=_lines(ended) if ended.get("reason") != "StartError" else (),
        )

    def _failure(self, ended: Object, *, completes: bool = False) -> Failure:
        """Return the reason why a container ended."""
        code = int(ended.get("exitCode", 0))
        if ended.get("reason") == "OOMKilled":
            limit = self._memory_limit()
            return out_of_memory(self.name, limit, limit) if limit else killed_by_kernel(self.name)
        if ended.get("reason") in ("StartError", "ContainerCannotRun"):
            return start_failed(self.name, self._program(), str(ended.get("message", "")))
        if code in _KILLS and (failure := self._killed_by_probe(ended)) is not None:
            return failure
        return crashed(self.name, Exit.from_shell(code), completes=completes)

    def _killed_by_probe(self, ended: Object) -> Failure | None:
        """Return the failure if the kubelet killed the container after failed probes; else None."""
        for warning in self.warnings:
            kind, _, words = warning.message.partition(" probe failed: ")
            if kind == "Startup" and (probe := self.container.get("startupProbe")):
                seconds = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
                began, over = _time(ended.get("startedAt")), _time(ended.get("finishedAt"))
                if began is not None and over is not None and over - began >= timedelta(seconds=seconds * 0.9 - 1):
                    return not_ready_in_time(self.name, seconds, probe["httpGet"]["path"], words.strip())
            if kind == "Liveness" and (probe := self.container.get("livenessProbe")):
                return unhealthy(self.name, probe.get("failureThreshold", 3), probe["httpGet"]["path"], words.strip())
        return None

    # Properties of the container

    def _memory_limit(self) -> int | None:
        text = ((self.container.get("resources") or {}).get("limits") or {}).get("memory")
        return int(parse_quantity(str(text))) if text else None

    def _requests(self) -> dict[str, str]:
        resources = self.container.get("resources") or {}
        return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}

    def _program(self) -> str:
        return str((self.container.get("command") or self.container.get("args") or [self.container["name"]])[0])


def _lines(ended: Object) -> tuple[str, ...]:
    """Return the last lines of the log, which the kubelet stores as the termination message."""
    return tuple(str(ended.get("message", "")).splitlines()[-_LOG_LINES:])


def _retry_at(ended: Object, waiting: Object) -> datetime | None:
    """Return the time of a container's next start: at once, or after the kubelet's back-off."""
    finished = _time(ended.get("finishedAt"))
    found = _BACK_OFF.search(str(waiting.get("message", "")))
    if finished is None or found is None:
        return finished
    return finished + timedelta(
        seconds=math.fsum(int(part or 0) * unit for part, unit in zip(found.groups(), (60, 1), strict=True))
    )
