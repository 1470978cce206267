"""The endpoints that are answered by a model's engine, under the same path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llmos_hub.gateway.context import Context, Handler
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routes import Route
from llmos_hub.gateway.stages import (
    ModelRequest,
    admit,
    authenticate,
    authorise,
    forward,
    parse,
    resolve,
    rewrite,
    settle,
    wait,
)

__all__ = ["ROUTES", "Inference"]


@dataclass(frozen=True, slots=True)
class Inference:
    """A handler of requests to models.

    Attributes
    ----------
    task
        The task that a model must have, so that its engine can answer.
    """

    task: str

    async def __call__(self, request: Request, context: Context) -> None:
        """Run a request through the stages, which `llmos_hub.gateway.stages` describes."""
        rights = await authenticate(request, context)
        call = ModelRequest(request, context, rights, self.task)
        try:
            await parse(call)
            resolve(call)
            authorise(call)
            admit(call)
            await wait(call)
            await rewrite(call)
            await forward(call)
        finally:
            settle(call)


ROUTES: Final[Mapping[Route, Handler]] = {
    Route("POST", "/v1/chat/completions"): Inference("generate"),
    Route("POST", "/v1/completions"): Inference("generate"),
    Route("POST", "/v1/embeddings"): Inference("embed"),
}
