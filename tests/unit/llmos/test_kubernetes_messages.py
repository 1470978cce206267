"""Parsing of Kubernetes' messages; the examples come from real clusters."""

from __future__ import annotations

import pytest

from llmos.kubernetes_messages import NodeCause, parse_limits, parse_quota, parse_unplaced

NO_CLAIMS = "no new claims to deallocate, preemption: 0/3 nodes are available: 3 No preemption victims found."


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("node(s) had untolerated taint {node.kubernetes.io/unreachable: }", "not-ready"),
        ("node(s) had untolerated taint {node.kubernetes.io/not-ready: }", "not-ready"),
        ("node(s) had untolerated taint {node.kubernetes.io/unschedulable: }", "closed"),
        ("node(s) were unschedulable", "closed"),
        ("node(s) didn't match Pod's node affinity/selector", "selector"),
        ("node(s) didn't match pod affinity rules", "pod-affinity"),
        ("Too many pods", "full"),
        ("node(s) had volume node affinity conflict", "volume-elsewhere"),
        ("node(s) had no available volume zone", "volume-zone"),
        ("node(s) exceed max volume count", "volume-count"),
        ("something new", "other"),
    ],
)
def test_each_reason_is_told_from_the_others(said: str, kind: str) -> None:
    found = parse_unplaced(f"0/3 nodes are available: 2 {said}. {NO_CLAIMS}")
    assert found is not None
    assert (found.total, found.causes) == (3, (NodeCause(kind, 2, said),))  # type: ignore[arg-type]


def test_several_reasons_are_counted_each_on_their_own() -> None:
    said = f"0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {{dedicated: ml, or more}}, 2 Insufficient nvidia.com/gpu. {NO_CLAIMS}"
    found = parse_unplaced(said)
    assert found is not None
    assert [(cause.kind, cause.count, cause.resource, cause.taint) for cause in found.causes] == [
        ("insufficient", 1, "cpu", ""),
        ("taint", 1, "", "dedicated"),
        ("insufficient", 2, "nvidia.com/gpu", ""),
    ]


def test_what_is_said_of_no_node_in_particular_has_no_count() -> None:
    found = parse_unplaced("0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found")
    assert found is not None
    assert [(cause.kind, cause.count) for cause in found.causes] == [("volume-unbound", None)]
    missing = parse_unplaced('0/2 nodes are available: persistentvolumeclaim "home" not found. preemption: …')
    assert missing is not None
    assert missing.causes[0].kind == "volume-missing"


def test_quotas() -> None:
    found = parse_quota(
        'pods "chat" is forbidden: exceeded quota: llmos, requested: limits.memory=4Gi,pods=1, '
        "used: limits.memory=6Gi,pods=3, limited: limits.memory=8Gi,pods=3"
    )
    assert found is not None
    assert found.name == "llmos"
    assert found.requested == {"limits.memory": "4Gi", "pods": "1"}
    assert found.used == {"limits.memory": "6Gi", "pods": "3"}
    assert found.limited == {"limits.memory": "8Gi", "pods": "3"}


def test_limits_come_one_or_several_at_once() -> None:
    said = "[maximum cpu usage per Container is 1500m, but limit is 2, minimum memory usage per Pod is 1.5Gi, but request is 0.5Gi]"
    assert [(f.side, f.resource, f.scope, f.bound, f.asked) for f in parse_limits(said)] == [
        ("maximum", "cpu", "Container", "1500m", "2"),
        ("minimum", "memory", "Pod", "1.5Gi", "0.5Gi"),
    ]


def test_what_is_not_known_is_nothing() -> None:
    assert parse_unplaced("skip schedule deleting pod") is None
    assert parse_quota("a webhook says no") is None
    assert parse_limits("a webhook says no") == []
