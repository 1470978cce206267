"""The endpoints that are passed on to a model's engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from llmos.errors import BadRequest, Cause, LLMOSError, TooManyRequests, Unavailable
from llmos_hub.gateway.body import add_fields, parse_body, replace_model
from llmos_hub.gateway.endpoints.base import Context, authenticate
from llmos_hub.gateway.media import check_media
from llmos_hub.gateway.proxy import forward
from llmos_hub.gateway.renaming import Renaming
from llmos_hub.gateway.request import ClientGone, Request, read_body
from llmos_hub.gateway.routing import ServedModel, not_ready, wrong_task
from llmos_hub.policy import Caller

__all__ = ["INFERENCE", "Inference"]

CLIENT_CLOSED: Final = 499
"""Status of a request whose client left, in logs and metrics; the number is nginx's."""


@dataclass(frozen=True, slots=True)
class Inference:
    """An endpoint of OpenAI's API, answered by the model's engine under the same path.

    Attributes
    ----------
    task
        The task that a model must have, so that its engine can answer.
    """

    path: str
    task: str
    method: str = "POST"
    quiet: bool = False

    async def handle(self, request: Request, context: Context) -> None:
        """Find the model and pass the request on."""
        caller = await authenticate(request, context)
        body = await self._receive(request, context)
        held, placed = len(body), False
        try:
            route, body = await self._route(request, caller, body, context)
            placed = _take_place(context, caller.name)
            await self._measured(request, route, body)
        finally:
            if placed:
                context.metrics.running -= 1
                context.places.give(caller.name)
            context.budget.give(caller.name, held)

    @staticmethod
    async def _receive(request: Request, context: Context) -> bytes:
        """Return the body. Only afterwards the request takes a place, so that slow senders keep nobody out."""
        receiving, caller = context.receiving, request.caller
        if not receiving.take(caller):
            raise TooManyRequests(
                f"{receiving.held(caller)} of your requests are still being sent, which is your share of what the gateway "
                "receives at once. Send fewer at a time."
            )
        try:
            return await read_body(request, context.options, context.budget)
        finally:
            receiving.give(caller)

    async def _route(
        self, request: Request, caller: Caller, body: bytes, context: Context
    ) -> tuple[ServedModel, bytes]:
        model, data = await parse_body(body)
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
        check_media(body, data, route.media_hosts)
        if model != route.served_name:
            request.renaming = Renaming(route.served_name, model)
            body = await replace_model(body, route.served_name)
        if route.parts_prompts:
            body = add_fields(body, context.prompt_caches.fields(route.engine, route.uid, caller.name))
        return route, body

    async def _measured(self, request: Request, route: ServedModel, body: bytes) -> None:
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


def _take_place(context: Context, caller: str) -> bool:
    """Reserve a place for a request to a model.

    Raises
    ------
    TooManyRequests
        The caller has their share already.
    Unavailable
        No place is left.
    """
    places = context.places
    if places.take(caller):
        context.metrics.running += 1
        return True
    if places.left:
        raise TooManyRequests(
            f"{places.held(caller)} of your requests are under way, which is your share of what the gateway answers at once. "
            "Try again when some are done."
        )
    raise Unavailable(
        f"The gateway serves {context.options.max_requests} requests at once, which is its limit. Try again in a second."
    )


INFERENCE: Final = (
    Inference("/v1/chat/completions", "generate"),
    Inference("/v1/completions", "generate"),
    Inference("/v1/embeddings", "embed"),
)
