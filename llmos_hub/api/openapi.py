"""The API's description, generated from its routes and kinds: OpenAPI 3.1, and a plain page for people."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.routing import BaseRoute, Route

from llmos.resources import API_VERSION, KINDS, MAIN_KIND, Resource, json_schema
from llmos_hub.api.endpoints import APIEndpoint, OpenOperation, Operation

__all__ = ["PARAMETERS", "make_document", "make_page"]

PARAMETERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "labelSelector": (
        {"type": "string"},
        "Only resources with these labels: `key=value`, several separated by commas.",
    ),
    "fieldSelector": ({"type": "string"}, "Only the resource of that name: `metadata.name=NAME`."),
    "watch": ({"type": "boolean"}, "Send each change as a line of JSON, for `timeoutSeconds`."),
    "resourceVersion": ({"type": "string"}, "Watch from this version; by default existing resources come first."),
    "timeoutSeconds": ({"type": "integer", "minimum": 0}, "End the watch after this number of seconds."),
    "limit": (
        {"type": "integer", "minimum": 0},
        "The maximum number of resources in the answer, which may have fewer; if there are more, `metadata.continue` is set.",
    ),
    "continue": (
        {"type": "string"},
        "The next page: `metadata.continue` of the previous one; 410 if it has expired.",
    ),
    "dryRun": ({"type": "string", "enum": ["All"]}, "Do everything except storing the result."),
    "tailLines": ({"type": "integer", "minimum": 0}, "Only this number of last lines of each replica."),
    "follow": ({"type": "boolean"}, "Continue with new lines as they are written."),
    "path": ({"type": "string"}, "The path below the volume, such as `models/a.gguf`; by default the volume itself."),
    "upload": (
        {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        "An upload: digits that stand for one version of the sender's file. A GET with them returns how much has arrived.",
    ),
    "offset": ({"type": "integer", "minimum": 0}, "Where the piece begins, in bytes."),
    "length": ({"type": "integer", "minimum": 0}, "The size of the piece, in bytes."),
    "total": ({"type": "integer", "minimum": 0}, "The size of the whole file, in bytes."),
    "sha256": ({"type": "string"}, "The SHA-256 of the piece."),
    "version": ({"type": "string"}, "The version that a list has shown; 409 if the file was changed since."),
    "recursive": ({"type": "boolean"}, "Remove a directory with all that is in it."),
    "replica": ({"type": "string"}, "Only the log of this replica."),
}
_TEXTS: Final = {
    "namespace": "`user-NAME`, `group-NAME` or `public`; `whoami` returns your own.",
    "name": "The resource's name.",
}
_STATUS: Final[dict[str, Any]] = {
    "type": "object",
    "description": "An error in Kubernetes' format; `details.code` is stable, `message` is for people.",
    "properties": {
        "kind": {"const": "Status"},
        "apiVersion": {"const": "v1"},
        "status": {"type": "string"},
        "reason": {"type": "string"},
        "message": {"type": "string"},
        "code": {"type": "integer"},
        "details": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "requestID": {"type": "string"},
                "causes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
        },
    },
}
_PARAMETER = re.compile(r"{(\w+)}")


def make_document(routes: Iterable[BaseRoute], *, version: str, server: str) -> dict[str, Any]:
    """Return the OpenAPI document (https://spec.openapis.org/oas/v3.1.0).

    Parameters
    ----------
    version
        The platform's version.
    server
        The path prefix under which the document is served; empty for none.
    """
    schemas: dict[str, Any] = {"Status": _STATUS}
    for kind in KINDS.values():
        schemas |= _kind_schemas(kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LLMOS",
            "version": version,
            "description": "Resources of `llmos.ai/v1alpha1` in Kubernetes' own layout, verbs and errors.",
        },
        "servers": [{"url": server or "/"}],
        "security": [{"hubToken": []}],
        "paths": {endpoint.template: _path_item(endpoint) for endpoint in _endpoints(routes)},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "hubToken": {"type": "http", "scheme": "bearer", "description": "A token from the Hub's token page."}
            },
        },
    }


def _endpoints(routes: Iterable[BaseRoute]) -> list[APIEndpoint]:
    return [r.endpoint for r in routes if isinstance(r, Route) and isinstance(r.endpoint, APIEndpoint)]


def _kind_schemas(kind: type[Resource]) -> dict[str, Any]:
    """Return the kind's schema and the schemas it refers to, by name under ``components/schemas``."""
    name = kind.kind_name()
    schema = _moved(json_schema(kind))
    listing = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"const": f"{name}List"},
            "metadata": {"type": "object", "properties": {"resourceVersion": {"type": "string"}}},
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
        },
    }
    return {**schema.pop("$defs", {}), name: schema, f"{name}List": listing}


def _moved(node: Any) -> Any:
    """Return the schema with its references changed to OpenAPI's place for schemas."""
    if isinstance(node, dict):
        return {
            k: v.replace("#/$defs/", "#/components/schemas/") if k == "$ref" and isinstance(v, str) else _moved(v)
            for k, v in node.items()
        }
    return [_moved(n) for n in node] if isinstance(node, list) else node


def _path_item(endpoint: APIEndpoint) -> dict[str, Any]:
    item: dict[str, Any] = {}
    names = _PARAMETER.findall(endpoint.template)
    if names:
        item["parameters"] = [
            {"name": n, "in": "path", "required": True, "schema": {"type": "string"}, "description": _TEXTS[n]}
            for n in names
        ]
    for method, operation in endpoint.operations.items():
        item[method.lower()] = _operation(endpoint, method, operation)
    return item


def _operation(endpoint: APIEndpoint, method: str, operation: Operation | OpenOperation) -> dict[str, Any]:
    kind = endpoint.kind.kind_name() if endpoint.kind is not Resource else ""
    answer = {"description": operation.summary, "content": _content(kind, operation.returns)}
    responses: dict[str, Any] = {"200": answer}
    result: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": method.lower() + re.sub(r"\W+", "_", endpoint.template).rstrip("_"),
        "tags": [kind or "platform"],
        "responses": responses,
    }
    if isinstance(operation, OpenOperation):
        result["security"] = []
        return result
    error = {"description": "Refused", "content": {"application/json": {"schema": _ref("Status")}}}
    responses |= {"201": answer} if operation.created else {}
    responses |= {"default": error}
    if operation.parameters:
        result["parameters"] = [_query(name) for name in operation.parameters]
    if operation.body:
        result["requestBody"] = {"required": operation.body != "options", "content": _request(kind, operation.body)}
    return result


def _query(name: str) -> dict[str, Any]:
    schema, text = PARAMETERS[name]
    return {"name": name, "in": "query", "schema": schema, "description": text}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(kind: str, returns: str) -> dict[str, Any]:
    if returns == "text":
        return {"text/plain": {"schema": {"type": "string"}}}
    if returns == "html":
        return {"text/html": {"schema": {"type": "string"}}}
    if returns == "bytes":
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    named = {"resource": kind, "list": f"{kind}List"}.get(returns)
    return {"application/json": {"schema": _ref(named) if named else {"type": "object"}}}


def _request(kind: str, body: str) -> dict[str, Any]:
    if body == "resource":
        return {t: {"schema": _ref(kind)} for t in ("application/json", "application/yaml")}
    if body == "patch":
        return {
            "application/apply-patch+yaml": {"schema": _ref(kind)},
            "application/merge-patch+json": {"schema": {"type": "object"}},
        }
    if body == "bytes":
        return _content(kind, "bytes")
    preconditions = {"type": "object", "properties": {"uid": {"type": "string"}}}
    return {"application/json": {"schema": {"type": "object", "properties": {"preconditions": preconditions}}}}


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:78rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
pre{padding:.8rem 1rem;background:#f4f4f4;overflow:auto}pre,code{font:14px ui-monospace,monospace}table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}pre{background:#222}td,th{border-color:#333}a{color:#8ab4f8}}
"""


def _example(address: str) -> str:
    """Return an example of first requests, in a shell and in Python."""
    url = f"{address}/apis/{API_VERSION}"
    shell = f"""export TOKEN=...      # from the Hub's token page, or: llmos token
curl -H "Authorization: Bearer $TOKEN" {url}/whoami
curl -H "Authorization: Bearer $TOKEN" {url}/namespaces/user-ada/{MAIN_KIND.plural}
curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/apply-patch+yaml" -X PATCH \\
     {url}/namespaces/user-ada/{MAIN_KIND.plural}/chat --data-binary @- <<EOF
kind: {MAIN_KIND.kind_name()}
metadata: {{name: chat}}
spec: {{model: "demo://smollm2"}}
EOF"""
    python = f"""import llmos

client = llmos.Client(url="{address}", token="...")   # in a notebook of the Hub without arguments
client.serve("demo://smollm2", name="chat")"""
    return f"<h2>Example</h2><pre>{html.escape(shell)}</pre><pre>{html.escape(python)}</pre>"


def make_page(document: dict[str, Any], address: str) -> str:
    """Return the document as an HTML page: one file that loads nothing else.

    Parameters
    ----------
    document
        The result of `make_document`.
    address
        The API's complete URL, for commands that can be pasted.
    """
    server = document["servers"][0]["url"].rstrip("/")
    rows: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            query = ", ".join(p["name"] for p in operation.get("parameters", ()))
            cells = (
                f"<code>{method.upper()}</code>",
                f"<code>{html.escape(server + path)}</code>",
                html.escape(operation["summary"]) + (f"<br><small>?{html.escape(query)}</small>" if query else ""),
            )
            rows.setdefault(operation["tags"][0], []).append("".join(f"<td>{c}</td>" for c in cells))
    tables = []
    for tag, lines in rows.items():
        schema = document["components"]["schemas"].get(tag, {})
        about = html.escape(str(schema.get("description", "")).splitlines()[0]) if schema else ""
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        tables.append(f"<h2>{html.escape(tag)}</h2><p>{about}</p><table>{body}</table>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>LLMOS API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>LLMOS API {html.escape(document['info']['version'])}</h1>"
        "<p>Send <code>Authorization: Bearer TOKEN</code> with a token from the Hub's token page. "
        f'The machine-readable description: <a href="{html.escape(server)}/openapi.json">openapi.json</a>.</p>'
        f"{_example(address)}{''.join(tables)}</html>"
    )
