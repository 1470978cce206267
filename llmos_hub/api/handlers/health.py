"""Health checks and metrics of the process."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llmos.errors import Unavailable
from llmos_hub.api.dependencies import Call, Services
from llmos_hub.api.metrics import APIMetrics

__all__ = ["health", "metrics", "ready", "rendered_metrics"]


async def health(request: Request, services: Services) -> Response:
    """Answer that the process is alive."""
    del request, services
    return JSONResponse({"status": "ok"})


async def ready(request: Request, services: Services) -> Response:
    """Answer whether requests can be served: from the first answers of the store and of the Hub on.

    In a cluster a new process has no cached identities, so it is not ready until the Hub has answered once.
    """
    state = request.app.state
    settling = getattr(state, "settling", None)
    if settling is not None and not settling.done():
        raise Unavailable("The Hub, which knows the tokens, has not answered yet.")
    # later it stays ready while the store is away: all replicas have the same one, and without any of them clients would
    # hang instead of being told
    if not getattr(state, "store_answered", False):
        if not await services.store.healthy():
            raise Unavailable("The store does not answer. Is Valkey running? See: llmos status")
        state.store_answered = True
    return JSONResponse({"status": "ok"})


async def metrics(call: Call) -> Response:
    """Return the metrics for Prometheus."""
    return rendered_metrics(call.services.metrics)


def rendered_metrics(metrics: APIMetrics) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
