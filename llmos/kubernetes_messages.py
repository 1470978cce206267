"""Parsers for Kubernetes' messages about pods that aren't scheduled or admitted. They do no I/O.

The scheduler and the admission plugins report reasons as sentences only. The modules that show these reasons, each in
words for its own readers, parse the sentences here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ExceededQuota", "NodeCause", "NodeCauseKind", "OutsideLimit", "Unplaced", "is_uncounted", "parse_limits", "parse_quota", "parse_unplaced"]  # fmt: skip

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
"""Reason why a node isn't suitable for a pod: it lacks a resource, isn't ready, is cordoned (``closed``), has a taint,
isn't selected, lacks a pod that must be near, runs its maximum number of pods; or a problem with a volume."""

_NODES: Final = re.compile(r"^\d+/(\d+) nodes are available: (.*)$", re.DOTALL)
_COUNTED: Final = re.compile(r"^(\d+) (.+)$", re.DOTALL)
_INSUFFICIENT: Final = re.compile(r"^Insufficient (\S+)$")
_TAINT: Final = re.compile(r"taint(?:\(s\))?(?: \{([^:}]+):?[^}]*\})?")
_TAINTS: Final[Mapping[str, NodeCauseKind]] = {
    "node.kubernetes.io/unreachable": "not-ready",
    "node.kubernetes.io/not-ready": "not-ready",
    "node.kubernetes.io/unschedulable": "closed",
}
# the first match counts: "volume node affinity" must not be taken for "node affinity"
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
    """One reason why some nodes aren't suitable for a pod.

    Attributes
    ----------
    kind
        Category of the reason.
    count
        Number of nodes with this reason; None if the message has no number.
    text
        The scheduler's words, without the number.
    resource
        The missing resource, for ``insufficient``: ``memory``, ``nvidia.com/gpu``.
    taint
        Key of the taint, for ``taint``; empty if the message doesn't have it.
    """

    kind: NodeCauseKind
    count: int | None
    text: str
    resource: str = ""
    taint: str = ""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A pod that no node is suitable for: the number of nodes and the reasons."""

    total: int
    causes: tuple[NodeCause, ...]


@dataclass(frozen=True, slots=True)
class ExceededQuota:
    """An exceeded ResourceQuota: its name, and amounts by resource as Kubernetes writes them."""

    name: str
    requested: Mapping[str, str]
    used: Mapping[str, str]
    limited: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OutsideLimit:
    """A violated LimitRange: at most or at least `bound` of `resource` is allowed per `scope`."""

    side: Literal["maximum", "minimum"]
    resource: str
    scope: str
    bound: str
    asked: str


def parse_unplaced(message: str) -> Unplaced | None:
    """Parse a message of the scheduler, ``0/3 nodes are available: …``; return None for other messages.

    Its parts about preemption and resource claims are ignored.

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


def is_uncounted(message: str) -> bool:
    """Return whether a refusal means that the cluster hasn't yet counted what a new quota covers; repeat the request.

    Source: ``checkRequest`` in
    https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go
    """
    return "status unknown for quota" in message


def parse_quota(message: str) -> ExceededQuota | None:
    """Parse a message of the admission plugin ResourceQuota, ``exceeded quota: …``; return None for other messages.

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
    """Parse messages of the admission plugin LimitRanger, ``maximum memory usage per Container is 1Gi, but limit is 4Gi``."""
    return [
        OutsideLimit("maximum" if side == "maximum" else "minimum", resource, scope, bound, asked.rstrip("."))
        for side, resource, scope, bound, asked in _LIMIT.findall(message)
    ]
