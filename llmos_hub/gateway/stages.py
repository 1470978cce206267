"""The stages of a request to a model, in their order.

`llmos_hub.gateway.endpoints.inference` runs them one after the other:

=============  ====================================================================================================
authenticate   Ask the Hub who the caller is; nearly always the answer is cached.
parse          Receive the body, within the caller's share of memory, and find the name of the model in it.
resolve        Find the model of that name among those that the caller may invoke.
authorise      Check that the model is made for the task, and that its engine would fetch media from allowed hosts only.
admit          Take a place among the requests under way, within the caller's share.
wait           Wait a moment for a ready replica, if the model is about to have one.
rewrite        Make the request for the engine: its own name of the model, and fields that separate callers' caches.
forward        Send the request to a replica and pass the answer back, through the taps.
settle         Count the request, and give back its place and memory. It runs however the request ends.
=============  ====================================================================================================

A stage refuses a request by raising an `LLMOSError`; then only `settle` follows. Stages know nothing of the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from llmos.errors import BadRequest, Cause, LLMOSError, TooManyRequests, Unavailable
from llmos_hub.gateway import proxy
from llmos_hub.gateway.body import add_fields, parse_body, replace_model
from llmos_hub.gateway.context import Context
from llmos_hub.gateway.heads import EngineRequest
from llmos_hub.gateway.media import check_media
from llmos_hub.gateway.renaming import Renaming
from llmos_hub.gateway.request import CLIENT_CLOSED, ClientGone, Request, bearer_token, read_body
from llmos_hub.gateway.routing import SOON_READY, ServedModel, not_ready, wrong_task
from llmos_hub.gateway.taps import Tap
from llmos_hub.policy import Rights

__all__ = [
    "ModelRequest",
    "admit",
    "authenticate",
    "authorise",
    "forward",
    "parse",
    "resolve",
    "rewrite",
    "settle",
    "wait",
]

_JSON: Final = b"application/json"


@dataclass(slots=True, eq=False)
class ModelRequest:
    """A request to a model, with what the stages have found out about it.

    Attributes
    ----------
    rights
        The caller, with their rights.
    task
        The task that a model must have, so that its engine can answer.
    body, data, content_type
        The body; the decoded value if it is small, until `rewrite`; and the type as which the engine gets it.
    held
        The bytes of memory that it holds of the budget.
    asked
        The model's name in the request.
    model
        The model, from `resolve` on.
    placed
        True while it has a place among the requests under way.
    outgoing
        The request for the engine, from `rewrite` on.
    status
        The status to count for the model; 0 unless it was forwarded.
    """

    request: Request
    context: Context
    rights: Rights
    task: str
    body: bytes = b""
    data: dict[str, Any] | None = None
    content_type: bytes = b""
    held: int = 0
    asked: str = ""
    model: ServedModel = field(init=False)
    placed: bool = False
    outgoing: EngineRequest = field(init=False)
    status: int = 0


async def authenticate(request: Request, context: Context) -> Rights:
    """Return the caller, whose token may invoke models, with their rights.

    Raises
    ------
    Unauthorized
        The token is missing or unknown.
    Forbidden
        The token is not for invoking models.
    Unavailable
        The Hub doesn't answer, or the models aren't known yet.
    """
    rights = await context.identity.authenticate(bearer_token(request.headers))
    request.caller = rights.caller.name
    rights.require_invoke()
    if not context.discovery.synced.is_set():
        raise Unavailable("The gateway has just started and does not know the models yet. Try again in a second.")
    return rights


async def parse(call: ModelRequest) -> None:
    """Receive the body, a JSON object, and find the name of the model in it.

    Raises
    ------
    BadRequest
        The body is not a JSON object that names a model.
    TooManyRequests, Unavailable
        The caller's share, or the gateway, holds no more bodies.
    """
    call.body = await _receive(call.request, call.context)
    call.held = len(call.body)
    asked, call.data = await parse_body(call.body)
    if asked is None:
        raise BadRequest(
            f"`model` is missing: say which model is asked. {call.context.table.suggestions(call.rights)}",
            causes=[Cause("model", "is required")],
        )
    call.asked = asked
    # The body was found to be JSON, whatever type the client declared: curl -d declares a form, and llama.cpp
    # accepts no large forms.
    call.content_type = _JSON


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


def resolve(call: ModelRequest) -> None:
    """Find the model.

    Raises
    ------
    ModelNotFound
        There is no model of that name that the caller may invoke.
    """
    call.model = call.context.table.resolve(call.rights, call.asked)
    call.request.model = call.model.key


def authorise(call: ModelRequest) -> None:
    """Check what is asked of the model. That the caller may invoke it is part of finding it.

    Raises
    ------
    Unsupported
        The model is for another task.
    BadRequest
        The engine would fetch media from a host that the model doesn't allow.
    """
    model = call.model
    if model.task and model.task != call.task:
        raise wrong_task(model, call.request.route.path)
    check_media(call.body, call.data, model.media_hosts)


def admit(call: ModelRequest) -> None:
    """Take a place among the requests under way.

    Raises
    ------
    TooManyRequests
        The caller has their share already.
    Unavailable
        No place is left.
    """
    places, caller = call.context.places, call.request.caller
    if places.take(caller):
        call.context.metrics.running += 1
        call.placed = True
        return
    if places.left:
        raise TooManyRequests(
            f"{places.held(caller)} of your requests are under way, which is your share of what the gateway answers at once. "
            "Try again when some are done."
        )
    raise Unavailable(
        f"The gateway serves {call.context.options.max_requests} requests at once, which is its limit. Try again in a second."
    )


async def wait(call: ModelRequest) -> None:
    """Wait a moment for a ready replica: who has just seen that the model is ready may ask before this process knows it.

    Raises
    ------
    ModelNotReady
        The model has no ready replica.
    ModelNotFound
        It was deleted meanwhile.
    """
    if not call.model.replicas and call.model.phase in SOON_READY:
        await call.context.table.wait_for_replica(call.model, call.context.options.ready_wait)
        resolve(call)
    if not call.model.replicas:
        error, call.request.retry_after = not_ready(call.model, call.rights)
        raise error


async def rewrite(call: ModelRequest) -> None:
    """Make the request for the engine; every byte of the body that need not be changed stays."""
    request, model, body = call.request, call.model, call.body
    taps: tuple[Tap, ...] = ()
    if call.asked != model.served_name:
        body = await replace_model(body, model.served_name)
    if model.engine == "custom":  # a program that may say anything
        taps = (Renaming(None, call.asked),)
    elif call.asked != model.served_name:
        taps = (Renaming(model.served_name, call.asked),)
    if model.parts_prompts:
        fields = call.context.prompt_caches.fields(model.engine, model.uid, request.caller)
        body = add_fields(body, fields)
    call.body, call.data = body, None  # an answer may take minutes; what it doesn't need is not kept in memory
    route = request.route
    call.outgoing = EngineRequest(route.method, route.fill(request.parameters), call.content_type, body, taps)


async def forward(call: ModelRequest) -> None:
    """Send the request to a replica and pass its answer back; see `llmos_hub.gateway.proxy.forward`."""
    call.status = 500
    try:
        await proxy.forward(call.request, call.model, call.outgoing)
        call.status = call.request.status
    except ClientGone:
        call.status = CLIENT_CLOSED
        raise
    except LLMOSError as error:
        call.status = error.status
        raise


def settle(call: ModelRequest) -> None:
    """Count a request that was forwarded, and give back what the request holds."""
    request, context, caller = call.request, call.context, call.request.caller
    if call.status:
        request.counted = True
        seconds = asyncio.get_running_loop().time() - request.began
        call.model.metrics.count(request.route.path, call.status, seconds, request.sent)
    if call.placed:
        context.metrics.running -= 1
        context.places.give(caller)
    context.budget.give(caller, call.held)
