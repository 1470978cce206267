"""The controllers' metrics for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["ControllerMetrics", "ProcessMetrics"]

_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""Seconds, from a reconcile that only reads memory to a database that hangs."""


@dataclass(frozen=True, slots=True)
class ControllerMetrics:
    """The metrics of one kind.

    Attributes
    ----------
    depth
        Number of keys that wait for a worker.
    waited, worked
        Seconds that keys waited for a worker, and that a worker spent on them.
    retried
        Number of keys that were added again after a failure.
    failed
        Returns the number of reconciles that raised an error with a code.
    """

    depth: Gauge
    waited: Histogram
    worked: Histogram
    retried: Counter
    failed: Callable[[str], Counter]


class ProcessMetrics:
    """The metrics of the controllers' process, labelled by kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kinds = ("kind",)
        self._depth = Gauge(
            "llmos_workqueue_depth", "Number of resources that wait for a worker.", kinds, registry=self.registry
        )
        self._waited = Histogram(
            "llmos_workqueue_wait_seconds",
            "Time that a resource waited for a worker.",
            kinds,
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._worked = Histogram(
            "llmos_reconcile_seconds", "Duration of reconciles.", kinds, registry=self.registry, buckets=_BUCKETS
        )
        self._retried = Counter(
            "llmos_workqueue_retries", "Reconciles repeated after an error.", kinds, registry=self.registry
        )
        self._failed = Counter(
            "llmos_reconcile_errors",
            "Failed reconciles, by the error's code.",
            ("kind", "code"),
            registry=self.registry,
        )

        self.leader = Gauge(
            "llmos_leader", "1 if this process is the leader, 0 if it stands by.", registry=self.registry
        )
        self.term = Gauge(
            "llmos_leader_term", "The leader's term: a number that grows with each leader.", registry=self.registry
        )

    def lead(self, leading: bool, term: int) -> None:
        """Record whether the process leads, and the term."""
        self.leader.set(int(leading))
        self.term.set(term)

    def of(self, kind: str) -> ControllerMetrics:
        """Return the metrics of one kind."""
        return ControllerMetrics(
            self._depth.labels(kind),
            self._waited.labels(kind),
            self._worked.labels(kind),
            self._retried.labels(kind),
            partial(self._failed.labels, kind),
        )
