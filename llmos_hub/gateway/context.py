"""The parts of the gateway that the handlers of requests work with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llmos.resources import ModelService
from llmos_hub.gateway.metrics import GatewayMetrics
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.prompt_cache import PromptCaches
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routing import RoutingTable
from llmos_hub.gateway.shares import Shares
from llmos_hub.identity.base import Identity
from llmos_hub.stores.follower import Follower

__all__ = ["Context", "Handler"]


@dataclass(slots=True, eq=False)
class Context:
    """The parts of the gateway that handlers work with.

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
        Done once the Hub, which verifies tokens, has answered since the start; None if nothing waits for it.
    """

    identity: Identity
    table: RoutingTable
    discovery: Follower[ModelService]
    metrics: GatewayMetrics
    options: GatewayOptions
    budget: Shares
    receiving: Shares
    places: Shares
    prompt_caches: PromptCaches
    draining: bool = False
    settling: asyncio.Future[bool] | None = None


Handler = Callable[[Request, Context], Awaitable[None]]
"""Answers the requests of a route. An `LLMOSError` that it raises is rendered in OpenAI's format by the application."""
