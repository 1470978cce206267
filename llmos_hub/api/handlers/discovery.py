"""Kubernetes' discovery documents, and the identity of the caller."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from llmos.resources import API_VERSION, KINDS, Resource
from llmos_hub.api.dependencies import Call

__all__ = ["api_group", "api_groups", "api_resources", "whoami"]

_GROUP, _, _VERSION = API_VERSION.partition("/")
_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


def _group() -> dict[str, Any]:
    version = {"groupVersion": API_VERSION, "version": _VERSION}
    return {"name": _GROUP, "versions": [version], "preferredVersion": version}


async def api_groups(call: Call) -> Response:
    """Return the only API group."""
    del call
    return JSONResponse({"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]})


async def api_group(call: Call) -> Response:
    """Return the group and its only version."""
    del call
    return JSONResponse({"kind": "APIGroup", "apiVersion": "v1", **_group()})


async def api_resources(call: Call) -> Response:
    """Return the kinds and their verbs."""
    del call
    resources = [entry for cls in KINDS.values() for entry in _entries(cls)]
    return JSONResponse(
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources}
    )


def _entries(cls: type[Resource]) -> list[dict[str, Any]]:
    common = {"namespaced": cls.scope == "Namespaced", "kind": cls.kind_name()}
    subresources = ["status", "events", *(["logs"] if cls.has_logs else [])]
    return [
        {
            "name": cls.plural,
            "singularName": cls.singular,
            "shortNames": list(cls.short_names),
            "verbs": list(_VERBS),
            **common,
        },
        *({"name": f"{cls.plural}/{sub}", "singularName": "", "verbs": ["get"], **common} for sub in subresources),
    ]


async def whoami(call: Call) -> Response:
    """Return the caller's identity and scopes, and the platform's addresses."""
    caller, addresses = call.caller, call.services.addresses
    return JSONResponse(
        {
            "name": caller.name,
            "admin": caller.admin,
            "namespace": caller.namespace,
            "groups": sorted(caller.groups),
            "scopes": sorted(caller.scopes),
            "gatewayURL": addresses.gateway,
            "publicURL": addresses.public,
        }
    )
