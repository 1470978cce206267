"""The endpoints of OpenAI's API that list models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from llmos_hub.gateway.context import Context, Handler
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routes import Route
from llmos_hub.gateway.routing import ServedModel, display_name
from llmos_hub.gateway.stages import authenticate
from llmos_hub.policy import Rights

__all__ = ["ROUTES"]


def make_model(rights: Rights, model: ServedModel, name: str) -> dict[str, Any]:
    """Make OpenAI's model object, with ``root`` as in vLLM, and the model's state."""
    return {
        "id": display_name(rights, model, name),
        "object": "model",
        "created": model.created,
        "owned_by": model.namespace,
        "root": display_name(rights, model, model.name),
        "task": model.task or None,
        "phase": model.phase,
        "ready": bool(model.replicas),
    }


async def list_models(request: Request, context: Context) -> None:
    """Answer with OpenAI's list object: every model that the caller may invoke, under each of its names.

    By default these are the models on the caller's search path; with ``?all=1`` those of all namespaces in which they
    may invoke models, which for an admin are all namespaces.
    """
    rights = await authenticate(request, context)
    query = parse_qs(request.query.decode("ascii", "replace"), max_num_fields=20) if request.query else {}
    everywhere = query.get("all", ["0"])[-1] in {"1", "true"}
    models = [
        make_model(rights, model, name)
        for model in context.table.visible(rights, everywhere=everywhere)
        for name in model.names
    ]
    await request.answer_json({"object": "list", "data": models})


async def retrieve_model(request: Request, context: Context) -> None:
    """Answer with OpenAI's model object."""
    rights = await authenticate(request, context)
    name = request.parameters["id"]
    model = context.table.resolve(rights, name)
    request.model = model.key
    bare = name if name in model.names else name.removeprefix(f"{model.namespace}/")
    await request.answer_json(make_model(rights, model, bare))


ROUTES: Final[Mapping[Route, Handler]] = {
    Route("GET", "/v1/models"): list_models,
    Route("GET", "/v1/models/{id}", slashes=True): retrieve_model,  # such as public/chat
}
