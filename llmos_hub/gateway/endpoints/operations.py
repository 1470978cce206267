"""Endpoints for operators: liveness, readiness and metrics. No token is needed."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from llmos.errors import NotFound
from llmos_hub.gateway.endpoints.base import Context, send_json
from llmos_hub.gateway.request import Request

__all__ = ["Health", "MetricsPage", "Ready"]


class Health:
    """The liveness endpoint: the process answers, whatever the state of store, Hub and models."""

    method = "GET"
    path = "/health"
    quiet = True

    async def handle(self, request: Request, context: Context) -> None:  # noqa: ARG002 - the protocol's signature
        """Answer with 200."""
        await send_json(request, {"status": "ok"})


class Ready:
    """The readiness endpoint: the gateway knows the models and takes requests."""

    method = "GET"
    path = "/ready"
    quiet = True

    async def handle(self, request: Request, context: Context) -> None:
        """Answer with 200, or with 503 and the reason."""
        if context.draining:
            await send_json(request, {"status": "stopping", "message": "The gateway is being stopped."}, 503)
        elif not context.discovery.ready.is_set():
            message = "The list of models has not come from the store yet."
            await send_json(request, {"status": "starting", "message": message}, 503)
        elif context.settling:
            message = "The Hub, which knows the tokens, has not answered yet."
            await send_json(request, {"status": "starting", "message": message}, 503)
        else:
            await send_json(request, {"status": "ok"})


class MetricsPage:
    """The metrics endpoint, without anything that identifies callers; on the gateway's port, not under the Hub."""

    method = "GET"
    path = "/metrics"
    quiet = True

    async def handle(self, request: Request, context: Context) -> None:
        """Answer in Prometheus' text format.

        Raises
        ------
        NotFound
            The request came through the Hub's proxy.
        """
        if request.through_hub:
            raise NotFound("The counts are on the gateway's own port, under /metrics.")
        await request.answer(200, CONTENT_TYPE_PLAIN_0_0_4.encode(), context.metrics.render())
