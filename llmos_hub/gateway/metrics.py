"""The gateway's metrics for Prometheus: no user names, no prompts, no tokens.

Counting is part of every request, so it is plain addition here; the Prometheus client library is used
only to render the metrics. A model outside the public namespace is labelled by its uid, because its
namespace would tell whose it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["GatewayMetrics", "Histogram", "ModelMetrics"]

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds in seconds: from a cached embedding to a long answer on a CPU."""


class Histogram:
    """A histogram with counts by bucket, which are cumulated only when rendered."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus expects them: upper bound and number of observations up to it."""
        pairs, running = [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            pairs.append((bound, float(running)))
        return pairs


class ModelMetrics:
    """The metrics of one model service."""

    __slots__ = ("duration", "first_byte", "label", "outstanding", "requests", "retries", "sent")

    def __init__(self, label: str) -> None:
        self.label = label
        self.requests: dict[tuple[str, int], int] = {}
        self.duration = Histogram()
        self.first_byte = Histogram()
        self.outstanding = 0
        self.retries = 0
        self.sent = 0

    def count(self, endpoint: str, status: int, seconds: float, sent: int) -> None:
        """Count a finished request."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.duration.observe(seconds)
        self.sent += sent


class GatewayMetrics(Collector):
    """All metrics of the gateway, as a Prometheus collector.

    Parameters
    ----------
    table_age
        Returns the seconds since the routing table was last known to be current; None before the first time.
    """

    def __init__(self, table_age: Callable[[], float | None] = lambda: None) -> None:
        self.table_age = table_age
        self.refused: dict[tuple[str, int], int] = {}
        self.running = 0
        self._models: dict[str, ModelMetrics] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for part in (ProcessCollector, PlatformCollector, GCCollector):
            part(registry=self._registry)

    def model(self, uid: str, label: str) -> ModelMetrics:
        """Return the metrics of the service with that uid."""
        return self._models.setdefault(uid, ModelMetrics(label))

    def retain(self, uids: Iterable[str]) -> None:
        """Drop the metrics of deleted services, so that the number of series stays bounded."""
        wanted = set(uids)
        for uid in [u for u, m in self._models.items() if u not in wanted and not m.outstanding]:
            del self._models[uid]

    def refuse(self, endpoint: str, status: int) -> None:
        """Count a request that was not passed to a model."""
        key = (endpoint, status)
        self.refused[key] = self.refused.get(key, 0) + 1

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; called by prometheus_client."""
        labels = ["model", "endpoint", "code"]
        requests = CounterMetricFamily(
            "llmos_gateway_requests", "Requests, by status sent to the client.", labels=labels
        )
        for (endpoint, status), count in list(self.refused.items()):
            requests.add_metric(["", endpoint, str(status)], count)
        duration = HistogramMetricFamily(
            "llmos_gateway_request_duration_seconds", "From a request's head to its answer's end.", labels=["model"]
        )
        first = HistogramMetricFamily(
            "llmos_gateway_first_byte_seconds",
            "From a request's head to the first byte of its answer.",
            labels=["model"],
        )
        outstanding = GaugeMetricFamily("llmos_gateway_outstanding", "Requests under way.", labels=["model"])
        retries = CounterMetricFamily(
            "llmos_gateway_retries", "Attempts that failed before the first byte.", labels=["model"]
        )
        sent = CounterMetricFamily("llmos_gateway_response_bytes", "Bytes of answers passed on.", labels=["model"])
        for model in list(self._models.values()):
            for (endpoint, status), count in list(model.requests.items()):
                requests.add_metric([model.label, endpoint, str(status)], count)
            duration.add_metric([model.label], model.duration.cumulated(), model.duration.total)
            first.add_metric([model.label], model.first_byte.cumulated(), model.first_byte.total)
            outstanding.add_metric([model.label], model.outstanding)
            retries.add_metric([model.label], model.retries)
            sent.add_metric([model.label], model.sent)
        yield from (requests, duration, first, outstanding, retries, sent)
        yield GaugeMetricFamily("llmos_gateway_running", "Model requests under way in all.", value=self.running)
        age = self.table_age()
        if age is not None:
            yield GaugeMetricFamily(
                "llmos_gateway_table_age_seconds", "Since the store last confirmed the routing table.", value=age
            )
