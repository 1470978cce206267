"""The routes of the API, generated from `KINDS`, in Kubernetes' layout so that its clients work here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from starlette.routing import Route

from llmos.resources import API_VERSION, KINDS, Resource
from llmos_hub.api.endpoints import APIEndpoint, Handler, OpenOperation, Operation, Returns
from llmos_hub.api.handlers import discovery, documents, health, platform
from llmos_hub.api.handlers.files import list_files, make_directory, read_file, remove_file, write_file
from llmos_hub.api.handlers.logs import read_log
from llmos_hub.api.handlers.resources import (
    create_resource,
    delete_resource,
    get_resource,
    list_events,
    list_resources,
    patch_resource,
    replace_resource,
)
from llmos_hub.policy import Rights

__all__ = ["make_routes"]

_BASE = f"/apis/{API_VERSION}"
_STATUS_REFUSAL = "Only the platform writes status. Change spec instead."
_LIST_PARAMETERS = ("labelSelector", "fieldSelector", "watch", "resourceVersion", "timeoutSeconds", "limit", "continue")


def make_routes() -> list[Route]:
    """Return all routes; each endpoint checks the method itself."""
    endpoints = [*_open_endpoints(), *_platform_endpoints()]
    for kind in KINDS.values():
        endpoints += _kind_endpoints(kind)
    return [Route(endpoint.template, endpoint, name=endpoint.template) for endpoint in endpoints]


def _open_endpoints() -> list[APIEndpoint]:
    page = OpenOperation(documents.page, "This page", "html")
    document = OpenOperation(documents.openapi_document, "The API in OpenAPI 3.1")
    alive = OpenOperation(health.health, "Return whether the process is alive")
    ready = OpenOperation(health.ready, "Return whether requests can be served")
    return [
        APIEndpoint("/", {"GET": page}),
        APIEndpoint("/docs", {"GET": page}),
        APIEndpoint("/openapi.json", {"GET": document}),
        APIEndpoint("/health", {"GET": alive, "HEAD": alive}),
        APIEndpoint("/ready", {"GET": ready, "HEAD": ready}),
    ]


def _platform_endpoints() -> list[APIEndpoint]:
    group = API_VERSION.partition("/")[0]
    # a notebook server can reach the process itself, too
    admins = partial(Rights.require_admin, what="read the platform's metrics")
    make_namespace = Operation(
        platform.make_namespace, "Create and prepare a namespace, if it isn't yet", returns="object", created=True
    )
    return [
        _read("/metrics", health.metrics, "Metrics for Prometheus, for admins", returns="text", requires=admins),
        _read("/apis", discovery.api_groups, "The API's groups"),
        _read(f"/apis/{group}", discovery.api_group, "The group's versions"),
        _read(_BASE, discovery.api_resources, "The kinds and their verbs"),
        _read(f"{_BASE}/whoami", discovery.whoami, "The identity and scopes of the token"),
        _read(
            f"{_BASE}/nodes",
            platform.list_nodes,
            "The nodes and their free resources",
            requires=Rights.require_manage,
        ),
        APIEndpoint(f"{_BASE}/namespaces/{{namespace}}", {"POST": make_namespace}),
    ]


def _read(
    template: str,
    handler: Handler,
    summary: str,
    *,
    returns: Returns = "object",
    requires: Callable[[Rights], None] | None = None,
) -> APIEndpoint:
    """Return an endpoint of no kind that can only be read."""
    return APIEndpoint(template, {"GET": Operation(handler, summary, returns=returns, requires=requires)})


def _kind_endpoints(kind: type[Resource]) -> list[APIEndpoint]:
    everywhere = f"{_BASE}/{kind.plural}"
    listing = Operation(list_resources, f"List or watch {kind.plural}", "list", _LIST_PARAMETERS, returns="list")
    if kind.scope == "Cluster":
        return _collection(kind, everywhere, listing)
    summary = f"List or watch {kind.plural} of all namespaces that you may see"
    of_all = replace(listing, summary=summary)
    return [
        APIEndpoint(everywhere, {"GET": of_all}, kind=kind),
        *_collection(kind, f"{_BASE}/namespaces/{{namespace}}/{kind.plural}", listing),
    ]


def _collection(kind: type[Resource], collection: str, listing: Operation) -> list[APIEndpoint]:
    item = f"{collection}/{{name}}"
    one = kind.singular
    create = Operation(create_resource, f"Create a {one}", "create", ("dryRun",), "resource", created=True)
    operations = {
        "GET": Operation(get_resource, f"Read a {one}", "get"),
        "PUT": Operation(replace_resource, f"Replace a {one}", "update", ("dryRun",), "resource"),
        "PATCH": Operation(
            patch_resource, f"Apply a {one}, or merge a patch into it", "update", ("dryRun",), "patch", created=True
        ),
        "DELETE": Operation(delete_resource, f"Delete a {one}", "delete", ("dryRun",), "options"),
    }
    status = Operation(get_resource, f"Read a {one} with its status", "get")
    events = Operation(list_events, f"The events of a {one}", "get", returns="events")
    endpoints = [
        APIEndpoint(collection, {"GET": listing, "POST": create}, kind=kind),
        APIEndpoint(item, operations, kind=kind),
        APIEndpoint(f"{item}/status", {"GET": status}, kind=kind, refusal=_STATUS_REFUSAL),
        APIEndpoint(f"{item}/events", {"GET": events}, kind=kind),
    ]
    if kind.has_logs:
        logs = Operation(read_log, f"The log of a {one}", "logs", ("tailLines", "follow", "replica"), returns="text")
        endpoints.append(APIEndpoint(f"{item}/logs", {"GET": logs}, kind=kind))
    if kind.has_files:
        endpoints += _file_endpoints(kind, f"{item}/files")
    return endpoints


def _file_endpoints(kind: type[Resource], files: str) -> list[APIEndpoint]:
    one = kind.singular
    listing = Operation(
        list_files, f"List files of a {one}", "get", ("path", "limit", "continue", "upload"), returns="object"
    )
    directory = Operation(make_directory, f"Make a directory in a {one}", "update", ("path",), returns="object")
    remove = Operation(
        remove_file, f"Remove a file of a {one}", "update", ("path", "recursive"), returns="object", metered=False
    )
    read = Operation(
        read_file, f"Read a file of a {one}", "get", ("path", "offset", "length", "version"), returns="bytes"
    )
    write = Operation(
        write_file,
        f"Write a file of a {one}, in pieces",
        "update",
        ("path", "upload", "offset", "total", "sha256"),
        "bytes",
        returns="object",
        metered=False,
    )
    return [
        APIEndpoint(files, {"GET": listing, "POST": directory, "DELETE": remove}, kind=kind),
        APIEndpoint(f"{files}/content", {"GET": read, "PUT": write}, kind=kind),
    ]
