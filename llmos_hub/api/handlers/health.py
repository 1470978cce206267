"""Whether the process is well, and what it counts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llmos.errors import Unavailable
from llmos_hub.api.dependencies import Services
from llmos_hub.api.endpoints import bearer_token
from llmos_hub.api.metrics import Metrics
from llmos_hub.policy import require_admin

__all__ = ["health", "metrics", "ready", "rendered_metrics"]


async def health(request: Request, services: Services) -> Response:
    """The process is alive."""
    del request, services
    return JSONResponse({"status": "ok"})


async def ready(request: Request, services: Services) -> Response:
    """Requests can be answered: the store answers. The Hub isn't asked: known callers are served without it.

    In a cluster a process that has just started, and knows nobody, says so until the Hub is there.
    """
    settling = getattr(request.app.state, "settling", None)
    if settling is not None and not settling.done():
        raise Unavailable("The Hub, which knows the tokens, has not answered yet.")
    if not await services.store.healthy():
        raise Unavailable("The store does not answer. Is Valkey running? See: llmos status")
    return JSONResponse({"status": "ok"})


async def metrics(request: Request, services: Services) -> Response:
    """Counters for Prometheus: for admins, since notebook servers reach the process too."""
    caller = await services.identity.authenticate(bearer_token(request, services))
    require_admin(caller, "read the platform's metrics")
    return rendered_metrics(services.metrics)


def rendered_metrics(metrics: Metrics) -> Response:
    """The counters as Prometheus reads them."""
    return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
