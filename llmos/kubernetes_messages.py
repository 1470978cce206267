"""What Kubernetes says when it doesn't place or doesn't make a pod, taken apart: pure functions.

Its scheduler and its admission plugins tell reasons as sentences only. Those who tell people of them, each in words for
their own readers, read the sentences here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ExceededQuota", "NodeCause", "NodeCauseKind", "OutsideLimit", "Unplaced", "parse_limits", "parse_quota", "parse_unplaced"]  # fmt: skip

NodeCauseKind = Literal[
    "insufficient",
    "not-ready",
    "closed",
    "taint",
    "selector",
    "pod-affinity",
    "full",
    "volume-unbound",
    "volume-missing",
    "volume-elsewhere",
    "volume-zone",
    "volume-count",
    "other",
]
"""Why nodes don't take a pod: they lack something, don't answer, are closed for maintenance, are kept for others, aren't
of the wanted kind, aren't where a pod is that must be near, have all the pods they may; or something with a volume."""

_NODES: Final = re.compile(r"^\d+/(\d+) nodes are available: (.*)$", re.DOTALL)
_COUNTED: Final = re.compile(r"^(\d+) (.+)$", re.DOTALL)
_INSUFFICIENT: Final = re.compile(r"^Insufficient (\S+)$")
_TAINT: Final = re.compile(r"taint(?:\(s\))?(?: \{([^:}]+):?[^}]*\})?")
_TAINTS: Final[Mapping[str, NodeCauseKind]] = {
    "node.kubernetes.io/unreachable": "not-ready",
    "node.kubernetes.io/not-ready": "not-ready",
    "node.kubernetes.io/unschedulable": "closed",
}
# the first that is found counts: "volume node affinity" is no "node affinity"
_SAID: Final[tuple[tuple[str, NodeCauseKind], ...]] = (
    ("volume node affinity", "volume-elsewhere"),
    ("available volume zone", "volume-zone"),
    ("max volume count", "volume-count"),
    ("unbound immediate PersistentVolumeClaims", "volume-unbound"),
    ("persistentvolumeclaim", "volume-missing"),
    ("were unschedulable", "closed"),
    ("node affinity", "selector"),
    ("node selector", "selector"),
    ("pod affinity", "pod-affinity"),
    ("Too many pods", "full"),
)
_QUOTA: Final = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<requested>.+?), used: (?P<used>.+?), limited: (?P<limited>\S+)"
)
_LIMIT: Final = re.compile(
    r"(maximum|minimum) (\S+) usage per (\w+) is ([^,\s]+), but (?:limit|request) is ([^,\]\s]+)"
)


@dataclass(frozen=True, slots=True)
class NodeCause:
    """One reason why some nodes don't take a pod.

    Attributes
    ----------
    kind
        Which reason.
    count
        How many nodes it is said of; None where it is said of none in particular.
    text
        What the scheduler says, without the count.
    resource
        What is lacking, for ``insufficient``: ``memory``, ``nvidia.com/gpu``.
    taint
        The taint's key, for ``taint``; empty where it isn't said.
    """

    kind: NodeCauseKind
    count: int | None
    text: str
    resource: str = ""
    taint: str = ""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """No node takes a pod: of `total` nodes, and why."""

    total: int
    causes: tuple[NodeCause, ...]


@dataclass(frozen=True, slots=True)
class ExceededQuota:
    """A ResourceQuota has no room: its name, and amounts by resource, as they are written."""

    name: str
    requested: Mapping[str, str]
    used: Mapping[str, str]
    limited: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OutsideLimit:
    """A LimitRange allows less, or wants more: at most or at least `bound` of `resource` per `scope`."""

    side: Literal["maximum", "minimum"]
    resource: str
    scope: str
    bound: str
    asked: str


def parse_unplaced(message: str) -> Unplaced | None:
    """What the scheduler says: ``0/3 nodes are available: …``; None where it says something else.

    What follows on preemption and resource claims is left out.

    >>> parse_unplaced("0/2 nodes are available: 2 Insufficient memory.").causes[0].resource
    'memory'
    """
    found = _NODES.match(message.strip())
    if not found:
        return None
    return Unplaced(int(found[1]), tuple(_causes(found[2])))


def _causes(text: str) -> Iterator[NodeCause]:
    reasons = text.partition(". ")[0].strip().rstrip(".")
    for part in re.split(r",\s+(?=\d+ )", reasons):
        counted = _COUNTED.match(part)
        yield _cause(counted[2], int(counted[1])) if counted else _cause(part, None)


def _cause(text: str, count: int | None) -> NodeCause:
    if lacking := _INSUFFICIENT.match(text):
        return NodeCause("insufficient", count, text, resource=lacking[1])
    if taint := _TAINT.search(text):
        key = (taint[1] or "").strip()
        kind = _TAINTS.get(key, "taint")
        return NodeCause(kind, count, text, taint=key if kind == "taint" else "")
    return NodeCause(next((kind for said, kind in _SAID if said in text), "other"), count, text)


def parse_quota(message: str) -> ExceededQuota | None:
    """What the admission plugin ResourceQuota says: ``exceeded quota: …``; None where it says something else.

    >>> parse_quota("exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3").limited
    {'pods': '3'}
    """
    found = _QUOTA.search(message)
    if not found:
        return None
    return ExceededQuota(found["name"], _pairs(found["requested"]), _pairs(found["used"]), _pairs(found["limited"]))


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): amount.strip() for name, _, amount in pairs}


def parse_limits(message: str) -> list[OutsideLimit]:
    """What the admission plugin LimitRanger says: ``maximum memory usage per Container is 1Gi, but limit is 4Gi``."""
    return [
        OutsideLimit("maximum" if side == "maximum" else "minimum", resource, scope, bound, asked.rstrip("."))
        for side, resource, scope, bound, asked in _LIMIT.findall(message)
    ]
