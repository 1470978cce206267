"""The endpoints that are answered by a model's engine, under the same path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llmos_hub.gateway import stages
from llmos_hub.gateway.context import Context, Handler
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routes import Route

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
        rights = await stages.authenticate(request, context)
        call = stages.ModelRequest(request, context, rights, self.task)
        try:
            await stages.parse(call)
            stages.resolve(call)
            stages.authorise(call)
            stages.admit(call)
            await stages.wait(call)
            await stages.rewrite(call)
            await stages.forward(call)
        finally:
            stages.settle(call)


ROUTES: Final[Mapping[Route, Handler]] = {
    Route("POST", "/v1/chat/completions"): Inference("generate"),
    Route("POST", "/v1/completions"): Inference("generate"),
    Route("POST", "/v1/embeddings"): Inference("embed"),
}
