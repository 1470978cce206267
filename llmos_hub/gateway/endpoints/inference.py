"""The endpoints that are passed on to a model's engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from llmos.errors import BadRequest, Cause, LLMOSError, Unavailable
from llmos_hub.gateway.body import find_model, replace_model
from llmos_hub.gateway.endpoints.base import Context, authenticate
from llmos_hub.gateway.proxy import forward
from llmos_hub.gateway.request import ClientGone, Request, read_body
from llmos_hub.gateway.routing import Route, not_ready, wrong_task
from llmos_hub.policy import Caller

__all__ = ["INFERENCE", "Inference"]

CLIENT_CLOSED: Final = 499
"""What logs and metrics call a request whose client left; nginx's number for it."""


@dataclass(frozen=True, slots=True)
class Inference:
    """One of OpenAI's endpoints, answered by the model's engine under the same path.

    Attributes
    ----------
    task
        What a model must be for, so that its engine can answer.
    """

    path: str
    task: str
    method: str = "POST"
    quiet: bool = False

    async def handle(self, request: Request, context: Context) -> None:
        """Find the model and pass the request on."""
        caller = await authenticate(request, context)
        metrics = context.metrics
        if metrics.running >= context.options.max_requests:
            raise Unavailable(
                f"The gateway serves {metrics.running} requests at once, which is its limit. Try again in a second."
            )
        metrics.running += 1
        held = 0
        try:
            body = await read_body(request, context.options, context.budget)
            held = len(body)
            route, body = await self._route(request, caller, body, context)
            await self._measured(request, route, body)
        finally:
            metrics.running -= 1
            context.budget.give(held)

    async def _route(self, request: Request, caller: Caller, body: bytes, context: Context) -> tuple[Route, bytes]:
        model = await find_model(body)
        if model is None:
            raise BadRequest(
                f"`model` is missing: say which model is asked. {context.table.suggestions(caller)}",
                causes=[Cause("model", "is required")],
            )
        route = context.table.resolve(caller, model)
        request.model = route.key
        if route.task and route.task != self.task:
            raise wrong_task(route, self.path)
        if not route.replicas:
            error, request.retry_after = not_ready(route)
            raise error
        if model != route.served_name:
            body = await replace_model(body, route.served_name)
        return route, body

    async def _measured(self, request: Request, route: Route, body: bytes) -> None:
        status = 500
        try:
            await forward(request, route, self.path.encode(), body)
            status = request.status
        except ClientGone:
            status = CLIENT_CLOSED
            raise
        except LLMOSError as error:
            status = error.status
            raise
        finally:
            request.counted = True
            route.metrics.count(self.path, status, asyncio.get_running_loop().time() - request.began, request.sent)


INFERENCE: Final = (
    Inference("/v1/chat/completions", "generate"),
    Inference("/v1/completions", "generate"),
    Inference("/v1/embeddings", "embed"),
)
