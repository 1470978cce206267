"""Endpoints for operators: liveness, readiness and metrics. No token is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from llmos.errors import NotFound
from llmos_hub.gateway.context import Context, Handler
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routes import Route

__all__ = ["ROUTES"]


async def health(request: Request, context: Context) -> None:  # noqa: ARG001 - the handlers' signature
    """Answer that the process is alive, whatever the state of store, Hub and models."""
    await request.answer_json({"status": "ok"})


async def ready(request: Request, context: Context) -> None:
    """Answer with 200 if the gateway knows the models and takes requests, otherwise with 503 and the reason."""
    if context.draining:
        await request.answer_json({"status": "stopping", "message": "The gateway is being stopped."}, 503)
    elif not context.discovery.synced.is_set():
        message = "The list of models has not come from the store yet."
        await request.answer_json({"status": "starting", "message": message}, 503)
    elif context.settling is not None and not context.settling.done():
        message = "The Hub, which knows the tokens, has not answered yet."
        await request.answer_json({"status": "starting", "message": message}, 503)
    else:
        await request.answer_json({"status": "ok"})


async def metrics(request: Request, context: Context) -> None:
    """Answer in Prometheus' text format, without anything that identifies callers.

    Raises
    ------
    NotFound
        The request came through the Hub's proxy: the metrics are on the gateway's own port only.
    """
    if request.through_hub:
        raise NotFound("The counts are on the gateway's own port, under /metrics.")
    await request.answer(200, CONTENT_TYPE_PLAIN_0_0_4.encode(), context.metrics.render())


ROUTES: Final[Mapping[Route, Handler]] = {
    Route("GET", "/health", quiet=True): health,
    Route("GET", "/ready", quiet=True): ready,
    Route("GET", "/metrics", quiet=True): metrics,
}
