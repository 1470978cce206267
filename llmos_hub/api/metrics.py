"""The API's metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["APIMetrics"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class APIMetrics:
    """The metrics of one application; each has its own registry, so that tests and reloads don't share any."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "llmos_api_requests",
            "Requests answered, by route template, method and HTTP status.",
            ("route", "method", "code"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "llmos_api_request_duration_seconds",
            "Seconds from a request's arrival to the start of its answer.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.streams = Gauge("llmos_api_open_streams", "Open watches and followed logs.", registry=self._registry)

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count a request; `route` is a template, not a path, since clients can send any number of different paths."""
        self._requests.labels(route, method, str(code)).inc()
        self._latency.labels(route, method).observe(seconds)

    def render(self) -> bytes:
        """Return the metrics in the text format 0.0.4."""
        return generate_latest(self._registry)
