"""Handlers that read and write resources of any kind. Each parses, calls the manager and answers; the caller is authorised."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from llmos.errors import Cause, Invalid, UnsupportedMediaType
from llmos.resources import API_VERSION, Resource
from llmos_hub.api import bodies
from llmos_hub.api.dependencies import Call
from llmos_hub.api.handlers.watches import watch_resources
from llmos_hub.api.rendering import event_list, listing, respond, whole_list
from llmos_hub.api.streams import WholeList
from llmos_hub.managers.resources import Permit
from llmos_hub.managers.settings import MAX_BODY_BYTES, MAX_STREAMS
from llmos_hub.policy import Ref

__all__ = [
    "create_resource",
    "delete_resource",
    "get_resource",
    "list_events",
    "list_resources",
    "patch_resource",
    "replace_resource",
]

_CLUSTERS_OWN: Final = frozenset({"managedFields", "selfLink"})


async def list_resources(call: Call) -> Response:
    """List resources or, with ``?watch=1``, watch them."""
    if call.flag("watch"):
        return await watch_resources(call)
    _ = call.resource_version  # refused if it is none; a list is always the newest
    selection, limit, token = call.selection, call.number("limit"), call.query.get("continue", "")
    services, kind, namespace = call.services, call.kind, call.namespace
    pages = services.resources
    if limit or token:
        page = await pages.page(kind, namespace, selection, limit=limit or sys.maxsize, token=token)
        return JSONResponse(listing(kind, page, call.rights))
    first = await pages.page(kind, namespace, selection)
    if not first.token:
        return JSONResponse(listing(kind, first, call.rights))
    with contextlib.ExitStack() as stack:
        stack.enter_context(services.streams.counted(call.caller.name, await services.settings.value(MAX_STREAMS)))
        rest = pages.rest(first, kind, namespace, selection)
        return WholeList(whole_list(kind, first, rest, call.rights), stack.pop_all())


async def get_resource(call: Call) -> Response:
    """Return one resource, also as ``…/status``."""
    return respond(await call.services.resources.get(call.kind, call.namespace, call.name), call.rights)


async def list_events(call: Call) -> Response:
    """Return the events of a resource."""
    return JSONResponse(event_list(await call.services.resources.events(call.kind, call.namespace, call.name)))


async def create_resource(call: Call) -> Response:
    """Store a new resource."""
    dry_run = call.dry_run
    resource = _resource(call, await _body(call), name=None)
    _permit(call)(None, resource)
    await _make_room(call, dry_run=dry_run)
    return respond(await call.services.resources.create(resource, dry_run=dry_run), call.rights, created=True)


async def replace_resource(call: Call) -> Response:
    """Replace an existing resource."""
    dry_run = call.dry_run
    resource = _resource(call, await _body(call), name=call.name)
    update = call.services.resources.update
    return respond(await update(resource, dry_run=dry_run, permit=_permit(call)), call.rights)


async def patch_resource(call: Call) -> Response:
    """Apply a manifest or merge a patch, depending on the Content-Type."""
    media_type = bodies.content_type(call.request)
    if media_type not in {bodies.APPLY_PATCH, bodies.MERGE_PATCH}:
        raise UnsupportedMediaType(
            f'Content-Type "{media_type[:80]}" is no patch that is known here. Use {bodies.APPLY_PATCH} with a whole '
            f"manifest, or {bodies.MERGE_PATCH} with what is to change."
        )
    dry_run = call.dry_run
    if media_type == bodies.MERGE_PATCH:
        patch = await _body(call)
        merge = call.services.resources.merge
        merged = await merge(call.kind, call.namespace, call.name, patch, dry_run=dry_run, permit=_permit(call))
        return respond(merged, call.rights)
    call.rights.require_some("create", Ref(call.kind, call.namespace, call.name))  # it may be new
    wanted = _resource(call, await _body(call, maybe_yaml=True), name=call.name)
    await _make_room(call, dry_run=dry_run)
    resource, created = await call.services.resources.apply(wanted, dry_run=dry_run, permit=_permit(call))
    return respond(resource, call.rights, created=created)


async def delete_resource(call: Call) -> Response:
    """Delete a resource; DeleteOptions in the body may give its uid as a precondition."""
    dry_run = call.dry_run
    uid = _precondition(await _body(call, empty={}))
    delete = call.services.resources.delete
    return respond(await delete(call.kind, call.namespace, call.name, uid=uid, dry_run=dry_run), call.rights)


def _permit(call: Call) -> Permit:
    """Return the check of a write by this caller."""
    rights, restrict = call.rights, call.services.resources.restrict

    def permit(old: Resource | None, new: Resource) -> None:
        if old is not None:
            rights.require("update", Ref.of(old))  # its labels may have changed since the request was authorised
        rights.require("create" if old is None else "update", Ref.of(new))
        if new.rests_until != (None if old is None else old.rests_until):
            rights.require("delete", Ref.of(new))
        if not rights.may_set_reserved(call.namespace):
            restrict(old, new)

    return permit


async def _make_room(call: Call, *, dry_run: bool) -> None:
    """Create the resource's namespace if it doesn't exist yet."""
    if call.namespace is not None and not dry_run:
        # Secrets, and the leases under which names are claimed, need rights there that the controllers grant
        await call.services.namespaces.needed(call.rights, call.namespace, prepared=True)


async def _body(call: Call, *, empty: Any = None, maybe_yaml: bool = False) -> Any:
    """Return the decoded body, or `empty` if there is no body."""
    media_type = bodies.content_type(call.request)
    body = await bodies.read_body(call.request, await call.services.settings.value(MAX_BODY_BYTES))
    if not body.strip():
        if empty is not None:
            return empty
        raise Invalid(f"The request has no body. Send a {call.kind.kind_name()} as JSON or YAML.")
    if maybe_yaml and body.lstrip().startswith(b"{"):
        media_type = bodies.JSON  # most clients apply JSON, which parses a hundred times faster than YAML
    return await bodies.decode(body, media_type)


def _precondition(options: Any) -> str | None:
    preconditions = options.get("preconditions") if isinstance(options, Mapping) else None
    uid = preconditions.get("uid") if isinstance(preconditions, Mapping) else None
    if uid is not None and not isinstance(uid, str):
        raise Invalid("preconditions.uid: must be a text", causes=[Cause("preconditions.uid", "must be a text")])
    return uid


def _resource(call: Call, body: Any, *, name: str | None) -> Resource:
    """Return the resource in the body, with missing fields filled in from the path.

    Status is silently ignored, as in Kubernetes, since clients send back the whole resource they have read. So are
    metadata fields that only a cluster's own API writes.

    Raises
    ------
    Invalid
        It is not valid for its kind, or contradicts the path.
    """
    if not isinstance(body, Mapping):
        return call.kind.parse(body, by_name=False)
    data = {"apiVersion": API_VERSION, "kind": call.kind.kind_name(), **body}
    data.pop("status", None)
    causes = [
        Cause(field, f'is "{str(data[field])[:80]}", but this address is for {expected}')
        for field, expected in (("apiVersion", API_VERSION), ("kind", call.kind.kind_name()))
        if data[field] != expected
    ]
    metadata = data.get("metadata", {})
    if isinstance(metadata, Mapping):
        metadata = {key: value for key, value in metadata.items() if key not in _CLUSTERS_OWN}
        for field, expected in (("name", name), ("namespace", call.namespace)):
            if expected is None:
                continue
            given = metadata.setdefault(field, expected)
            if given is None:
                metadata[field] = expected
            elif given != expected:
                causes.append(Cause(f"metadata.{field}", f'is "{str(given)[:80]}", but the address says "{expected}"'))
        data["metadata"] = metadata
    if causes:
        raise Invalid("; ".join(str(c) for c in causes), causes=causes)
    return call.kind.parse(data, by_name=False)
