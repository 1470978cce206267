"""Endpoints: each authenticates and authorises its requests, has them answered and audits them.

Their operations also make the OpenAPI page.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmos.errors import BadRequest, LLMOSError, MethodNotAllowed, NotFound, Unauthorized
from llmos.resources import Resource
from llmos_hub.api.audit import log_action
from llmos_hub.api.dependencies import Call, Services
from llmos_hub.managers.settings import MAX_WRITES
from llmos_hub.policy import Ref, Rights, Verb

__all__ = ["APIEndpoint", "Operation"]

Handler = Callable[[Call], Awaitable[Response]]
OpenHandler = Callable[[Request, Services], Awaitable[Response]]
Body = Literal["", "resource", "patch", "options", "bytes"]
Returns = Literal["resource", "list", "status", "object", "text", "html", "events", "bytes"]

_BEARER: Final = re.compile(r"^(?:bearer|token)\s+(\S+)$", re.IGNORECASE)
_MAX_HEADER: Final = 4096


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of an endpoint.

    Attributes
    ----------
    handler
        Handles the request of an authenticated caller.
    summary
        The summary on the OpenAPI page.
    verb
        The verb that the caller needs for the endpoint's kind; ``list`` becomes ``watch`` with ``?watch=1``. Empty: only
        `requires` is checked.
    requires
        Raises an error unless the caller has the rights that the operation needs beside the verb.
    parameters
        The query's parameters, by name in `llmos_hub.api.openapi.PARAMETERS`.
    body, returns
        The types of the request's and the answer's body.
    metered
        False if it writes no resource, so that it isn't one of the writes that a person may send each second.
    created
        True if the answer may be 201.
    """

    handler: Handler
    summary: str
    verb: Verb | Literal[""] = ""
    parameters: tuple[str, ...] = ()
    body: Body = ""
    returns: Returns = "resource"
    created: bool = False
    metered: bool = True
    requires: Callable[[Rights], None] | None = None


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """One method of an endpoint that needs no token."""

    handler: OpenHandler
    summary: str
    returns: Returns = "object"


class APIEndpoint:
    """The ASGI application of one endpoint.

    Parameters
    ----------
    template
        The path with its parameters in braces.
    operations
        The operations by HTTP method.
    kind
        The kind it serves; `Resource` if it is for no particular kind.
    refusal
        The message for other methods, if the default one is not enough.
    """

    def __init__(
        self,
        template: str,
        operations: Mapping[str, Operation | OpenOperation],
        *,
        kind: type[Resource] = Resource,
        refusal: str = "",
    ) -> None:
        self.template = template
        self.operations = operations
        self.kind = kind
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive, send)
        services: Services = request.app.state.services
        operation = self.operations.get(request.method)
        if operation is None:
            allowed = ", ".join(sorted(self.operations))
            raise MethodNotAllowed(self._refusal or f"{request.method[:20]} is not possible here. Possible: {allowed}.")
        if isinstance(operation, OpenOperation):
            response = await operation.handler(request, services)
        else:
            response = await self._authorised(request, services, operation)
        await response(scope, receive, send)

    async def _authorised(self, request: Request, services: Services, operation: Operation) -> Response:
        """Answer an authenticated caller who has the right; every such request is audited once."""
        token = bearer_token(request, services)
        rights = await services.identity.authenticate(token)
        request.scope["llmos.caller"] = caller = rights.caller.name
        call, verb, outcome = Call(request, services, rights, token, self.kind), operation.verb, "internal"
        try:
            if request.method != "GET" and operation.metered:  # before its body is read
                services.writes.take(caller, await services.settings.value(MAX_WRITES))
            if verb == "list" and call.flag("watch"):
                verb = "watch"
            if operation.requires is not None:
                operation.requires(rights)
            if verb:
                call = replace(call, within=await call.authorise(verb))
            response = await operation.handler(call)
            outcome = str(response.status_code)
        except LLMOSError as error:
            outcome = error.code
            if isinstance(error, NotFound) and verb and not rights.may("list", Ref(self.kind, call.namespace)):
                raise NotFound(f"There is no such {self.kind.singular} here.") from None  # without similar names
            raise
        finally:
            log_action(call, verb, outcome)
        return response


def bearer_token(request: Request, services: Services) -> str:
    """Return the token in the Authorization header; cookies are never accepted.

    Raises
    ------
    Unauthorized
        The header is missing or has no token.
    BadRequest
        The header was sent twice: a proxy in front may have checked the other one.
    """
    if len(request.headers.getlist("authorization")) > 1:
        raise BadRequest("The header Authorization was sent twice. Send it once, with one token.")
    found = _BEARER.match(request.headers.get("authorization", "")[:_MAX_HEADER])
    if found is None:
        page = f": {services.addresses.public}/hub/token" if services.addresses.public else "."
        raise Unauthorized(f'Send "Authorization: Bearer TOKEN" with a token from the Hub\'s token page{page}')
    return found[1]
