"""The controllers' metrics for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["ControllerMetrics", "ProcessMetrics"]

_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""Seconds, from a reconcile that only reads memory to a database that hangs."""


class ProcessMetrics:
    """The metrics of the controllers' process, labelled by kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kinds = ("kind",)
        self.depth = Gauge(
            "llmos_workqueue_depth", "Number of resources that wait for a worker.", kinds, registry=self.registry
        )
        self.waited = Histogram(
            "llmos_workqueue_wait_seconds",
            "Time that a resource waited for a worker.",
            kinds,
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.worked = Histogram(
            "llmos_reconcile_seconds", "Duration of reconciles.", kinds, registry=self.registry, buckets=_BUCKETS
        )
        self.retried = Counter(
            "llmos_workqueue_retries", "Reconciles repeated after an error.", kinds, registry=self.registry
        )
        self.failed = Counter(
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
        return ControllerMetrics(self, kind)


class ControllerMetrics:
    """The metrics of one kind; a `llmos_hub.controllers.workqueue.QueueMetrics`."""

    def __init__(self, metrics: ProcessMetrics, kind: str) -> None:
        self._depth = metrics.depth.labels(kind)
        self._waited = metrics.waited.labels(kind)
        self._worked = metrics.worked.labels(kind)
        self._retried = metrics.retried.labels(kind)
        self._failed = metrics.failed
        self._kind = kind

    def depth(self, keys: int) -> None:
        """Record the number of keys that wait for a worker."""
        self._depth.set(keys)

    def waited(self, seconds: float) -> None:
        """Record the time a key waited for a worker."""
        self._waited.observe(seconds)

    def worked(self, seconds: float) -> None:
        """Record the time a worker spent on a key."""
        self._worked.observe(seconds)

    def retried(self) -> None:
        """Count a key that was added again after a failure."""
        self._retried.inc()

    def failed(self, code: str) -> None:
        """Count a reconcile that raised an error with that code."""
        self._failed.labels(self._kind, code).inc()
