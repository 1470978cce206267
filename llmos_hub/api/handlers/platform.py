"""The platform's own objects: namespaces, created on first use, and nodes."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from llmos.resources import API_VERSION
from llmos_hub.api.dependencies import Call
from llmos_hub.managers.namespaces import NamespaceState
from llmos_hub.managers.nodes import visible_to

__all__ = ["list_nodes", "make_namespace"]


async def make_namespace(call: Call) -> Response:
    """Ensure that a namespace exists and that pods may be started in it; idempotent."""
    assert call.namespace is not None, "the address names one"
    state = await call.services.namespaces.ensure(call.rights, call.namespace, prepared=True)
    return JSONResponse(_document(state), status_code=201 if state.created else 200)


def _document(state: NamespaceState) -> dict[str, object]:
    owner = {"kind": state.owner.kind, "name": state.owner.name}
    if state.owner.created:
        owner["created"] = state.owner.created
    return {
        "apiVersion": API_VERSION,
        "kind": "Namespace",
        "metadata": {"name": state.name},
        "status": {"prepared": state.prepared, "owner": owner, "serviceAccount": state.service_account},
    }


async def list_nodes(call: Call) -> Response:
    """Return the nodes with their capacity and free resources, and the workloads there that the caller may see."""
    nodes = visible_to(call.rights, await call.services.nodes.all())
    return JSONResponse(nodes.model_dump(mode="json", by_alias=True))
