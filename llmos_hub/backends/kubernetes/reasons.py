"""Reasons why a pod doesn't run, as a word for programs and a sentence for people; pure functions.

The cluster's messages are written for its administrators. Here they are translated for the owner of the model, with
advice on what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from llmos.kubernetes_messages import NodeCause, parse_limits, parse_quota, parse_unplaced
from llmos.names import MODELS_CLAIM
from llmos.resources.quantities import format_bytes, parse_quantity
from llmos_hub.backends.failures import Failure

__all__ = ["image_pull", "not_created", "not_mounted", "probe_failing", "start_failed", "unschedulable"]

_PULL: Final = re.compile(r'image "([^"]+)"')
_MAX: Final = 300
_WAITS: Final = "It starts by itself once there is room."
_NOUNS: Final = {"cpu": "CPUs", "ephemeral-storage": "disk space", "count/jobs.batch": "jobs"}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX else text[: _MAX - 2] + " …"


def _amount(resource: str, text: str) -> str:
    """Return a quantity in readable form."""
    if "memory" in resource or "storage" in resource:
        try:
            return format_bytes(float(parse_quantity(text)))
        except ValueError:
            return text
    return text


def _noun(resource: str) -> str:
    if "gpu" in resource:
        return "GPUs"
    name = resource.removeprefix("requests.").removeprefix("limits.")
    return _NOUNS.get(name, name)


# Not placed on a node


def unschedulable(name: str, message: str, wanted: dict[str, str]) -> Failure:
    """Return the failure of a pod that fits on no node.

    Parameters
    ----------
    name
        The service's name.
    message
        The scheduler's message: ``0/3 nodes are available: 1 Insufficient memory, 2 node(s) …``.
    wanted
        The pod's requests, by resource.
    """
    found = parse_unplaced(message)
    if found is None:
        return Failure("Unschedulable", f"{name} is not placed on a machine: {_short(message)}")
    total, causes = found.total, found.causes
    short = [cause.resource for cause in causes if cause.kind == "insufficient"]
    where = f"none of {total} machines has" if total != 1 else "the only machine doesn't have"
    others = [_other(cause) for cause in causes if cause.kind != "insufficient"]
    but = f" ({'; '.join(others)})" if others else ""
    gpu = next((resource for resource in short if "gpu" in resource), None)
    if gpu is not None:
        count = wanted.get(gpu, "1")
        what = "a GPU" if count == "1" else f"{count} GPUs"
        return Failure("InsufficientGPU", f"{name} waits for {what}: {where} as many free{but}. {_WAITS}")
    for resource, reason in (("memory", "InsufficientMemory"), ("cpu", "InsufficientCPU")):
        if resource in short:
            asked = _amount(resource, wanted.get(resource, "more"))
            noun = "memory" if resource == "memory" else "CPUs"
            advice = f"Make room (llmos ps shows what each uses), or ask for less: llmos set {name} --{resource} …"
            return Failure(reason, f"{name} needs {asked} of {noun} and {where} that free{but}. {_WAITS} {advice}")
    if any(cause.kind in ("volume-unbound", "volume-missing") for cause in causes):
        return Failure("Volume", f"{name} waits for its model volume: {'; '.join(others)}.")
    what = f"no room for {_noun(short[0])}" if short else "; ".join(others)
    return Failure("Unschedulable", f"{name} fits on none of {total} machines: {what}. {_WAITS}")


_CAUSES: Final = {
    "not-ready": "not answering",
    "closed": "closed for maintenance",
    "selector": "of another kind than nodeSelector asks for",
    "volume-elsewhere": "without access to its volume",
    "volume-zone": "without access to its volume",
    "volume-count": "with all the volumes it can have",
    "full": "full of pods",
    "pod-affinity": "without the model volume, which only one machine can have",
}


def _other(cause: NodeCause) -> str:
    """Return a phrase for one cause."""
    nodes = f"{cause.count} " if cause.count else ""
    if cause.kind == "taint":
        return f"{nodes}kept for others by {f'the taint {cause.taint}' if cause.taint else 'a taint'}"
    if cause.kind == "volume-unbound":
        return f"the claim {MODELS_CLAIM} is not bound to a volume"
    return f"{nodes}{_CAUSES.get(cause.kind) or cause.text.removeprefix('node(s) ')}"


# Not created


def not_created(name: str, message: str) -> Failure:
    """Return the failure of a workload whose pods the cluster refuses to create.

    Parameters
    ----------
    message
        The cluster's message: ``pods "…" is forbidden: exceeded quota: …``.
    """
    quota = parse_quota(message)
    if quota is not None:
        return Failure("QuotaExceeded", _quota_words(name, quota.requested, quota.used, quota.limited))
    for limit in parse_limits(message)[:1]:
        most = "at most" if limit.side == "maximum" else "at least"
        return Failure(
            "Refused",
            f"{name} asks for {_amount(limit.resource, limit.asked)} of {_noun(limit.resource)}; here a "
            f"{limit.scope.lower()} may have {most} {_amount(limit.resource, limit.bound)}.",
        )
    if "must specify limits.memory" in message:
        return Failure(
            "Refused",
            f"{name} says nothing of the memory that it uses at most, as a quota of its namespace wants. "
            f"Say it: llmos set {name} --memory 2Gi",
        )
    why = message.partition(" is forbidden: ")[2] or message
    return Failure("Refused", f"{name} can't start: the cluster refuses its pods: {_short(why)}")


def _quota_words(name: str, requested: Mapping[str, str], used: Mapping[str, str], limited: Mapping[str, str]) -> str:
    parts = [
        f"{_amount(what, used.get(what, '0'))} of {_amount(what, limited[what])} {_noun(what)} are in use and "
        f"{_amount(what, asked)} more were asked for"
        for what, asked in requested.items()
        if what in limited
    ]
    unique = list(dict.fromkeys(parts))
    return (
        f"{name} can't start within the quota: {'; '.join(unique)}. "
        "It starts by itself once something else stops. Stop another model (llmos ps), or ask for less."
    )


# Not started


def image_pull(name: str, reason: str, image: str, message: str) -> Failure:
    """Return the failure of a pod whose image can't be pulled."""
    found = _PULL.search(message)
    image = image or (found[1] if found else "?")
    why = "the registry doesn't have it, or doesn't give it to us"
    lowered = message.lower()
    if reason == "InvalidImageName":
        why = "that is no name of an image"
    elif reason == "ErrImageNeverPull":
        why = "it is not on this machine, and may not be fetched"
    elif "unauthorized" in lowered or "authentication" in lowered or "denied" in lowered:
        why = "the registry asks for other credentials than imagePullSecrets has"
    elif "no such host" in lowered or "timeout" in lowered or "refused" in lowered or "unreachable" in lowered:
        why = "the registry can't be reached"
    text = f"{name} can't start: its image {image} can't be fetched: {why}. It is tried again and again."
    return Failure("ImagePull", text)


def start_failed(name: str, program: str, message: str) -> Failure:
    """Return the failure of a container that can't be created, or whose program is missing."""
    if "no such file" in message or "not found in $PATH" in message or "executable file not found" in message:
        return Failure("NotFound", f'{name} can\'t be started: the program "{program}" is not in its image.')
    if "permission denied" in message and "exec" in message:
        return Failure("NotFound", f'{name} can\'t be started: the program "{program}" may not be run in its image.')
    return Failure("StartFailed", f"{name} can't be started: {_short(message)}")


def not_mounted(name: str, message: str) -> Failure:
    """Return the failure of a pod that waits for a volume."""
    if "Multi-Attach" in message:
        why = "another machine has it, and it can be on one only; it moves once no pod uses it there"
    else:
        why = _short(message)
    return Failure("Volume", f"{name} waits for a volume: {why}")


def probe_failing(name: str, messages: Sequence[str]) -> Failure:
    """Return the failure of a pod that runs but fails its readiness probe."""
    said = next((text.partition("probe failed: ")[2] or text for text in messages), "")
    more = f": {_short(said)}" if said else ""
    return Failure("Unhealthy", f"{name} runs but is not ready{more}. See why: llmos logs {name}")
