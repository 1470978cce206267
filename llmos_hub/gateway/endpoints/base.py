"""What an endpoint is: one path of the gateway."""

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
    """What endpoints work with.

    Attributes
    ----------
    budget
        Bytes of request bodies in memory.
    receiving
        Requests whose body is on its way.
    places
        Requests that a model answers, or is about to.
    draining
        Set when the process is about to end.
    settling
        Set while the process has just started and the Hub, which knows the tokens, is away.
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
    """Answers requests to one path."""

    @property
    def method(self) -> str:
        """The one it has."""
        ...

    @property
    def path(self) -> str:
        """Without the prefix under the Hub. One that ends in ``/`` answers what is below it."""
        ...

    @property
    def quiet(self) -> bool:
        """Whether it is asked so often, and says so little, that only a debugging log has it."""
        ...

    async def handle(self, request: Request, context: Context) -> None:
        """Answer.

        Raises
        ------
        LLMOSError
            Rendered in OpenAI's format by the one who called.
        """
        ...


async def authenticate(request: Request, context: Context) -> Caller:
    """Who asks; they may invoke at least something.

    Raises
    ------
    Unauthorized
        Nobody we know.
    Forbidden
        The token is for other things.
    Unavailable
        The one who knows doesn't answer, or the models aren't known yet.
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
