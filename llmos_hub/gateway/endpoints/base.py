"""The interface of endpoints, and what they share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from llmos.errors import Unavailable
from llmos_hub.gateway.discovery import Discovery
from llmos_hub.gateway.metrics import Metrics
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.prompt_cache import PromptCaches
from llmos_hub.gateway.request import Request, bearer_token
from llmos_hub.gateway.routing import Table, require_invoke
from llmos_hub.gateway.shares import Shares
from llmos_hub.identity.base import Identity
from llmos_hub.policy import Caller

__all__ = ["Context", "Endpoint", "authenticate", "send_json"]


@dataclass(slots=True, eq=False)
class Context:
    """The parts of the gateway that endpoints work with.

    Attributes
    ----------
    budget
        The budget of bytes for request bodies in memory.
    receiving
        The places for requests whose body is being received.
    places
        The places for requests that a model answers.
    draining
        True once the process is about to end.
    settling
        True while the process has just started and the Hub, which verifies tokens, is unreachable.
    """

    identity: Identity
    table: Table
    discovery: Discovery
    metrics: Metrics
    options: GatewayOptions
    budget: Shares
    receiving: Shares
    places: Shares
    prompt_caches: PromptCaches
    draining: bool = False
    settling: bool = False


class Endpoint(Protocol):
    """An endpoint, which answers requests to one path."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        ...

    @property
    def path(self) -> str:
        """The path, without the prefix under the Hub. If it ends in ``/``, everything below it is answered."""
        ...

    @property
    def quiet(self) -> bool:
        """True if requests are so frequent and uninteresting that they are logged at debug level only."""
        ...

    async def handle(self, request: Request, context: Context) -> None:
        """Answer a request.

        Raises
        ------
        LLMOSError
            To be rendered in OpenAI's format by the caller.
        """
        ...


async def authenticate(request: Request, context: Context) -> Caller:
    """Return the caller, who may invoke models at least in their own namespace.

    Raises
    ------
    Unauthorized
        The token is missing or unknown.
    Forbidden
        The token is not for invoking models.
    Unavailable
        The Hub doesn't answer, or the models aren't known yet.
    """
    caller = await context.identity.authenticate(bearer_token(request.headers))
    request.caller = caller.name
    require_invoke(caller)
    if not context.discovery.ready.is_set():
        raise Unavailable("The gateway has just started and does not know the models yet. Try again in a second.")
    return caller


async def send_json(request: Request, data: Any, status: int = 200) -> None:
    """Answer with JSON."""
    await request.answer(status, b"application/json", json.dumps(data, ensure_ascii=False).encode())
