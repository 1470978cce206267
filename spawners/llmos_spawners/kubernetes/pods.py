"""Messages about the phase of a notebook server's pod, made by pure functions from the pod and its events.

Pods and events are JSON as returned by the API server. Messages of the scheduler that aren't recognised are passed on
unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmos.kubernetes_messages import NodeCause, parse_unplaced
from llmos.resources.quantities import format_bytes, parse_quantity
from llmos_spawners.start_phases import Phase

__all__ = ["phase_of", "unschedulable"]

CONTAINER: Final = "notebook"
"""KubeSpawner's name of the server's container."""

_NEVER_THERE: Final = re.compile(
    r"not found|manifest unknown|unauthorized|denied|forbidden|repository does not exist|no such host|invalid reference",
    re.IGNORECASE,
)


_PULLS: Final = 5
"""Failed pulls after which the start is given up; the kubelet's back-off is 80 seconds by then."""


def phase_of(pod: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]] = ()) -> Phase | None:
    """Return the phase of a pod's start; None if there is no pod yet."""
    if pod is None:
        return None
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return Phase(15, "Ending the server's previous pod")
    scheduled: Mapping[str, Any] = next((c for c in status.get("conditions", ()) if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") != "True":
        return _waiting_for_a_node(scheduled, events)
    container = next((c for c in status.get("containerStatuses", ()) if c["name"] == CONTAINER), None)
    init = [c for c in status.get("initContainerStatuses", ()) if not c.get("ready")]
    if container is None:
        return _volumes(events) or Phase(35, f"Preparing the pod on {pod['spec'].get('nodeName', 'a node')}")
    state = container.get("state", {})
    last = container.get("lastState", {}).get("terminated") or state.get("terminated")
    if last and not container.get("ready"):
        return _ended(pod, container, last)
    if waiting := state.get("waiting"):
        if init and waiting.get("reason") == "PodInitializing":
            return Phase(55, f"Preparing: {init[0]['name']} runs first")
        return _waiting(pod, waiting, events)
    return Phase(80, "Starting Jupyter") if not container.get("ready") else Phase(90, "Jupyter is up")


def unschedulable(message: str) -> str:
    """Return the scheduler's reasons in words.

    >>> unschedulable("0/2 nodes are available: 2 Insufficient memory.")
    'none of 2 nodes fits: too little free memory on 2'
    """
    found = parse_unplaced(message)
    if found is None:
        return message.strip().rstrip(".")
    reasons = [
        _reason(cause) if cause.count is None else f"{_reason(cause)} on {cause.count}" for cause in found.causes
    ]
    nodes = "the only node doesn't fit" if found.total == 1 else f"none of {found.total} nodes fits"
    return f"{nodes}: {', '.join(reasons)}"


_SHORT: Final = {
    "cpu": "too few free cores",
    "memory": "too little free memory",
    "ephemeral-storage": "too little disk",
}
_REASONS: Final = {
    "not-ready": "not ready",
    "closed": "closed for new work",
    "full": "no place for another pod",
    "selector": "not the kind of node that is asked for",
    "volume-elsewhere": "a volume is elsewhere",
    "volume-zone": "a volume is in another zone",
    "volume-count": "no place for another volume",
    "pod-affinity": "your other servers have the home elsewhere",
}


def _reason(cause: NodeCause) -> str:
    if cause.kind == "insufficient":
        gpu = "GPU" if cause.resource.endswith("/gpu") else cause.resource
        return _SHORT.get(cause.resource, f"no free {gpu}")
    if cause.kind == "taint":
        return f"kept for other work ({cause.taint})" if cause.taint else "kept for other work"
    return _REASONS.get(cause.kind, cause.text)


def _count(events: Sequence[Mapping[str, Any]], text: str) -> int:
    """Return how often events with a text occurred; repeated events are one with a count."""
    return sum(int(event.get("count") or 1) for event in events if text in (event.get("message") or ""))


def _latest(events: Sequence[Mapping[str, Any]], *reasons: str) -> str:
    return next((event.get("message") or "" for event in reversed(events) if event.get("reason") in reasons), "")


def _waiting_for_a_node(condition: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Phase:
    message = condition.get("message") or ""
    if condition.get("reason") != "Unschedulable":
        return Phase(20, "Looking for a node")
    if "unbound immediate PersistentVolumeClaims" in message:
        return Phase(22, "Waiting for the home volume to be made")
    if "persistentvolumeclaim" in message and "not found" in message:
        return Phase(22, f"A volume isn't there: {unschedulable(message)}")
    if any(event.get("reason") == "TriggeredScaleUp" for event in events):
        return Phase(25, f"A node is being added, 1 to 5 min: {unschedulable(message)}")
    words = unschedulable(message)
    if "no free GPU" in words:
        return Phase(25, f"Waiting for a GPU: {words}")
    return Phase(25, f"Waiting for room: {words}")


def _volumes(events: Sequence[Mapping[str, Any]]) -> Phase | None:
    """Return the phase of the latest event about volumes; None if a newer event shows progress."""
    for event in reversed(events):
        message = event.get("message") or ""
        if event.get("reason") == "FailedAttachVolume" and "Multi-Attach" in message:
            return Phase(35, "The home is still attached to another node; that takes up to 6 min after a node died")
        if event.get("reason") in ("FailedAttachVolume", "FailedMount"):
            return Phase(35, f"A volume can't be mounted yet: {_short(message)}")
        if event.get("reason") in ("Pulling", "Pulled", "Created", "Started", "SuccessfulAttachVolume"):
            return None
    return None


def _waiting(pod: Mapping[str, Any], waiting: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Phase:
    reason, message = waiting.get("reason", ""), waiting.get("message") or ""
    image = next(c["image"] for c in pod["spec"]["containers"] if c["name"] == CONTAINER)
    if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ErrInvalidImageName"):
        detail = _latest(events, "Failed") or message
        never = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(_NEVER_THERE.search(f"{message} {detail}"))
        never = never or _count(events, "Failed to pull image") >= _PULLS
        return Phase(45, f"The image {image} can't be pulled: {_pull_error(message or detail)}", "image", never)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        return Phase(60, f"The container can't be made: {_short(message)}", "configuration", hopeless=True)
    last = next((e for e in reversed(events) if e.get("reason") in ("Pulling", "Pulled", "Created", "Started")), None)
    if last is not None and last["reason"] == "Pulling":
        return Phase(45, f"Pulling the image {image}")
    if last is None and (volumes := _volumes(events)):
        return volumes
    return Phase(60, "Making the container") if last else Phase(35, f"Preparing the pod on {pod['spec']['nodeName']}")


def _pull_error(message: str) -> str:
    """Return the last part of containerd's nested messages, which has the reason."""
    text = _short(message, 600)
    tail = text.rpartition(": ")[2] if ": " in text else text
    return tail if len(tail) > 12 else _short(text)


def _ended(pod: Mapping[str, Any], container: Mapping[str, Any], last: Mapping[str, Any]) -> Phase:
    again = int(container.get("restartCount", 0)) >= 2 or pod["status"].get("phase") in ("Succeeded", "Failed")
    if last.get("reason") == "OOMKilled":
        spec = next(c for c in pod["spec"]["containers"] if c["name"] == CONTAINER)
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        size = f": it had {_memory(limit)}" if limit else ""
        return Phase(60, f"The server ran out of memory{size}. Choose a larger size.", "memory", again)
    lines = [line.strip() for line in (last.get("message") or "").splitlines() if line.strip()]
    said = f": {' / '.join(lines[-2:])[:300]}" if lines else ""
    return Phase(60, f"The server ended with exit code {last.get('exitCode')}{said}", "crash", again)


def _memory(quantity: str) -> str:
    try:
        return format_bytes(float(parse_quantity(quantity)))
    except ValueError:
        return quantity


def _short(text: str, length: int = 240) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
