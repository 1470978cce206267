"""Why a pod doesn't run, in a word for programs and a sentence for people; pure functions.

What the cluster says of it is written for its administrators. Here it is told to the one whose model it is, with
what can be done about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from llmos.resources.quantities import format_bytes, parse_quantity
from llmos_hub.backends.local.failures import Failure

__all__ = ["image_pull", "not_created", "not_mounted", "probe_failing", "start_failed", "unschedulable"]

_NODES: Final = re.compile(r"^(\d+)/(\d+) nodes are available: (.*)$", re.DOTALL)
_COUNTED: Final = re.compile(r"^(\d+) (.+)$")
_TAINT: Final = re.compile(r"\{([^:}]+):?\s*([^}]*)\}")
_QUOTA: Final = re.compile(r"exceeded quota: ([^,]+), requested: (\S+), used: (\S+), limited: (\S+)")
_LIMIT: Final = re.compile(
    r"(maximum|minimum) (\S+) usage per (\w+) is (\S+?),? but (limit|request) is (\S+?)(?:[,.\]]|$)"
)
_PULL: Final = re.compile(r'image "([^"]+)"')
_MAX: Final = 300
_WAITS: Final = "It starts by itself once there is room."
_WHAT: Final = {
    "requests.memory": "memory",
    "limits.memory": "memory",
    "memory": "memory",
    "requests.cpu": "CPUs",
    "limits.cpu": "CPUs",
    "cpu": "CPUs",
    "pods": "pods",
    "requests.storage": "storage",
    "ephemeral-storage": "disk space",
    "count/jobs.batch": "jobs",
}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX else text[: _MAX - 2] + " …"


def _amount(resource: str, text: str) -> str:
    """A quantity as people read it."""
    if "memory" in resource or "storage" in resource:
        try:
            return format_bytes(float(parse_quantity(text)))
        except ValueError:
            return text
    return text


def _noun(resource: str) -> str:
    if "gpu" in resource:
        return "GPUs"
    return _WHAT.get(resource, resource)


# Not placed on a node


def unschedulable(name: str, message: str, wanted: dict[str, str]) -> Failure:
    """No node can take it.

    Parameters
    ----------
    name
        The service's.
    message
        The scheduler's: ``0/3 nodes are available: 1 Insufficient memory, 2 node(s) …``.
    wanted
        What the pod asks for, by resource.
    """
    found = _NODES.match(message.strip())
    if not found:
        return Failure("Unschedulable", f"{name} is not placed on a machine: {_short(message)}")
    total, rest = int(found[2]), found[3]
    causes = [*_causes(rest)]
    short = [cause.removeprefix("Insufficient ") for _, cause in causes if cause.startswith("Insufficient ")]
    where = f"none of {total} machines has" if total != 1 else "the only machine doesn't have"
    others = [_other(count, cause) for count, cause in causes if not cause.startswith("Insufficient ")]
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
            advice = f"Make room (%llmos ps shows what each uses), or ask for less: %llmos set {name} --{resource} …"
            return Failure(reason, f"{name} needs {asked} of {noun} and {where} that free{but}. {_WAITS} {advice}")
    if any("PersistentVolumeClaim" in cause or "persistentvolumeclaim" in cause for _, cause in causes):
        return Failure("Volume", f"{name} waits for its model volume: {'; '.join(others)}.")
    what = f"no room for {_noun(short[0])}" if short else "; ".join(others)
    return Failure("Unschedulable", f"{name} fits on none of {total} machines: {what}. {_WAITS}")


def _causes(rest: str) -> Iterator[tuple[int, str]]:
    """How many nodes, and why not; what is said after that, of preemption and claims, is left out."""
    text = rest.partition(". ")[0].strip().rstrip(".")
    for part in re.split(r",\s+(?=\d+ )", text):
        counted = _COUNTED.match(part)
        yield (int(counted[1]), counted[2]) if counted else (0, part)


def _other(count: int, cause: str) -> str:
    """Half a sentence for one cause."""
    nodes = f"{count} " if count else ""
    if "taint" in cause:
        taint = _TAINT.search(cause)
        key = taint[1].strip() if taint else "a taint"
        if "unreachable" in key or "not-ready" in key:
            return f"{nodes}not answering"
        if "unschedulable" in key:
            return f"{nodes}closed for maintenance"
        return f"{nodes}kept for others by the taint {key}"
    if "unschedulable" in cause:
        return f"{nodes}closed for maintenance"
    if "node affinity" in cause or "selector" in cause:
        return f"{nodes}of another kind than nodeSelector asks for"
    if "volume node affinity" in cause:
        return f"{nodes}without access to its volume"
    if "unbound immediate" in cause:
        return "the claim llmos-models is not bound to a volume"
    if "Too many pods" in cause:
        return f"{nodes}full of pods"
    if "pod affinity" in cause:
        return f"{nodes}without the model volume, which only one machine can have"
    return f"{nodes}{cause.removeprefix('node(s) ')}"


# Not made


def not_created(name: str, message: str) -> Failure:
    """The cluster refuses to make its pods.

    Parameters
    ----------
    message
        Why: ``pods "…" is forbidden: exceeded quota: …``.
    """
    quota = _QUOTA.search(message)
    if quota:
        return Failure("QuotaExceeded", _quota_words(name, *(_pairs(group) for group in quota.groups()[1:])))
    limit = _LIMIT.search(message)
    if limit:
        bound, resource, per, value, _, asked = limit.groups()
        most = "at most" if bound == "maximum" else "at least"
        return Failure(
            "Refused",
            f"{name} asks for {_amount(resource, asked)} of {_noun(resource)}; here a {per.lower()} may have {most} "
            f"{_amount(resource, value)}.",
        )
    why = message.partition(" is forbidden: ")[2] or message
    return Failure("Refused", f"{name} can't start: the cluster refuses its pods: {_short(why)}")


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def _quota_words(name: str, requested: dict[str, str], used: dict[str, str], limited: dict[str, str]) -> str:
    parts = [
        f"{_amount(what, used.get(what, '0'))} of {_amount(what, limited[what])} {_noun(what)} are in use and "
        f"{_amount(what, asked)} more were asked for"
        for what, asked in requested.items()
        if what in limited
    ]
    unique = list(dict.fromkeys(parts))
    return (
        f"{name} can't start within the quota: {'; '.join(unique)}. "
        "It starts by itself once something else stops. Stop another model (%llmos ps), or ask for less."
    )


# Not started


def image_pull(name: str, reason: str, image: str, message: str) -> Failure:
    """Its image can't be had."""
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
    """Its program isn't there, or its container can't be made."""
    if "no such file" in message or "not found in $PATH" in message or "executable file not found" in message:
        return Failure("NotFound", f'{name} can\'t be started: the program "{program}" is not in its image.')
    if "permission denied" in message and "exec" in message:
        return Failure("NotFound", f'{name} can\'t be started: the program "{program}" may not be run in its image.')
    return Failure("StartFailed", f"{name} can't be started: {_short(message)}")


def not_mounted(name: str, message: str) -> Failure:
    """A volume isn't there for it yet."""
    if "Multi-Attach" in message:
        why = "another machine has it, and it can be on one only; it moves once no pod uses it there"
    else:
        why = _short(message)
    return Failure("Volume", f"{name} waits for a volume: {why}")


def probe_failing(name: str, messages: Sequence[str]) -> Failure:
    """It runs, but says that it isn't ready."""
    said = next((text.partition("probe failed: ")[2] or text for text in messages), "")
    more = f": {_short(said)}" if said else ""
    return Failure("Unhealthy", f"{name} runs but is not ready{more}. See why: %llmos logs {name}")
