"""Requests as the gateway sees them, independent of the server.

`Client` is the interface to the server, which `llmos_hub.gateway.asgi` implements for ASGI. Only that module,
`llmos_hub.gateway.app` and `llmos_hub.gateway.server` depend on ASGI or uvicorn.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from llmos.errors import (
    BadRequest,
    Cause,
    PayloadTooLarge,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)
from llmos_hub.gateway.options import MIB, GatewayOptions
from llmos_hub.gateway.routes import NOWHERE, Route
from llmos_hub.gateway.shares import Shares
from llmos_hub.names import HEADER_REQUEST_ID

__all__ = [
    "ALWAYS",
    "CLIENT_CLOSED",
    "Client",
    "ClientGone",
    "Headers",
    "Request",
    "bearer_token",
    "read_body",
    "request_id",
]

Headers = list[tuple[bytes, bytes]]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
ALWAYS: Final[Headers] = [
    # Under the Hub's path answers have the Hub's origin, and anybody may control what an engine sends: it must
    # never be shown as a page.
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
]
_OTHER_SCHEMES: Final = (b"basic", b"token", b"digest", b"negotiate")
_REQUEST_ID_HEADER: Final = HEADER_REQUEST_ID.encode()


CLIENT_CLOSED: Final = 499
"""Status of a request whose client left, in logs and metrics; the number is nginx's."""


class ClientGone(Exception):
    """The client closed its connection: the answer can't be delivered."""


class Client(Protocol):
    """The client at the other end of a connection."""

    async def receive(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether more follows.

        Raises
        ------
        ClientGone
            The client disconnected.
        """
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        ...

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the answer; wait while the client doesn't read."""
        ...

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` once if the client disconnects; the body must have been received."""
        ...

    def unwatch(self) -> None:
        """Stop watching."""
        ...


@dataclass(slots=True, eq=False)
class Request:
    """One request to the gateway.

    Attributes
    ----------
    method, path, query
        Parts of the request line; the path is decoded and without the prefix that it has behind the Hub's proxy.
    headers
        The headers, with names in lower case.
    id
        The request id, which is in all its log lines and errors.
    client
        The client that sent it.
    began
        The loop's time when it began.
    through_hub
        True if it came through the Hub's proxy, which everybody can reach.
    started
        True once an answer was begun.
    status, sent, first_byte
        The status of the answer, its bytes sent so far, and the loop's time when the first came from the engine.
    caller, model
        The names of the caller and of the model, for the log; empty while unknown.
    body_read
        True once the whole body was received.
    retry_after
        Seconds after which to retry, sent with a temporary error.
    counted
        True once it is counted in the metrics of a model.
    repeated
        The name of a header that is repeated but must not be; otherwise empty.
    cors
        The CORS headers of the answer.
    route, parameters
        The route that was found for it, and the values of the parameters in the route's path.
    """

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    id: str
    client: Client
    began: float
    through_hub: bool = False
    started: bool = False
    status: int = 0
    sent: int = 0
    first_byte: float | None = None
    caller: str = ""
    model: str = ""
    body_read: bool = False
    retry_after: int = 2
    counted: bool = False
    repeated: str = ""
    cors: Headers = field(default_factory=list)
    route: Route = NOWHERE
    parameters: Mapping[str, str] = field(default_factory=dict)

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer, with the request's id in its headers."""
        self.started = True
        self.status = status
        headers.append((_REQUEST_ID_HEADER, self.id.encode()))
        headers += ALWAYS
        if self.cors:
            headers += self.cors
        await self.client.start(status, headers)

    async def answer(
        self, status: int, content_type: bytes, body: bytes, headers: Headers | None = None, *, more: bool = False
    ) -> None:
        """Send a whole answer at once; with `more`, it is to be ended by another write."""
        await self.start(
            status,
            [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or [])],
        )
        self.sent += len(body)
        await self.client.write(body, more=more)

    async def answer_json(self, data: Any, status: int = 200) -> None:
        """Send a whole answer of JSON."""
        await self.answer(status, b"application/json", json.dumps(data, ensure_ascii=False).encode())


def request_id(headers: dict[bytes, bytes]) -> str:
    """Return the id that the client or a proxy in front chose, if it is well-formed, otherwise a new one."""
    given = headers.get(_REQUEST_ID_HEADER)
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return secrets.token_hex(8)


def bearer_token(headers: dict[bytes, bytes]) -> str:
    """Return the token in the Authorization header.

    Raises
    ------
    Unauthorized
        There is no bearer token.
    """
    value = headers.get(b"authorization", b"")
    scheme, _, token = value.partition(b" ")
    token = token.strip()
    if scheme.lower() == b"bearer" and token and token.isascii():
        return token.decode()
    if value:
        # Only a known scheme's name is repeated: anything else may be the token itself.
        sent = f', not "{scheme.decode()} …"' if scheme.lower() in _OTHER_SCHEMES else ""
        what = f'The Authorization header must read "Bearer TOKEN"{sent}.'
    else:
        what = 'No token was sent. Send the header "Authorization: Bearer TOKEN".'
    raise Unauthorized(
        f"{what} OpenAI clients do with api_key=TOKEN or OPENAI_API_KEY, which is set in notebooks. "
        "Make a token with: llmos token"
    )


def _hold(budget: Shares, caller: str, size: int) -> None:
    """Reserve memory for a request body.

    Raises
    ------
    TooManyRequests
        The caller holds their share already.
    Unavailable
        Not enough is left.
    """
    if budget.take(caller, size):
        return
    if budget.left >= size and budget.held(caller):
        raise TooManyRequests(
            f"Your requests hold {budget.held(caller) / MIB:.1f} MiB of the gateway's memory, which is your share of it now. "
            "Send large ones one after the other, or try again in a few seconds."
        )
    raise Unavailable(
        "The gateway is busy with other large requests and can't hold one more. Try again in a few seconds."
    )


def _too_large(options: GatewayOptions) -> PayloadTooLarge:
    size = f"{options.max_body / MIB:g} MiB"
    return PayloadTooLarge(f"The request body is larger than {size}, the most this gateway takes. Send it in several.")


def _check_declared(headers: dict[bytes, bytes], options: GatewayOptions) -> None:
    if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
        raise UnsupportedMediaType("The request body must be sent as it is, without Content-Encoding.")
    value = headers.get(b"content-length")
    if value is None:
        return  # chunked: counted as it comes
    if not value.isdigit():
        raise BadRequest("The Content-Length header is not a number.", causes=[Cause("content-length", "not a number")])
    if len(value) > 12 or int(value) > options.max_body:
        raise _too_large(options)


async def read_body(request: Request, options: GatewayOptions, budget: Shares) -> bytes:
    """Return the whole body. Its size is taken from the budget for the caller, and has to be given back afterwards.

    Raises
    ------
    PayloadTooLarge
        The body or its declared length is too large.
    RequestTimeout
        The body did not arrive in time.
    Unavailable, TooManyRequests
        Not enough of the budget is left, or of the caller's share.
    ClientGone
        The client disconnected.
    """
    _check_declared(request.headers, options)
    taken = 0  # The declared length reserves nothing: a few who never send the body would keep everybody out.
    pieces: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    last_moment = loop.time() + options.body_timeout
    try:
        async with asyncio.timeout(options.body_gap_timeout) as timer:
            more = True
            while more:
                piece, more = await request.client.receive()
                size += len(piece)
                if size > options.max_body:
                    raise _too_large(options)  # noqa: TRY301 - the reserved memory is given back below
                if size > taken:
                    _hold(budget, request.caller, size - taken)
                    taken = size
                pieces.append(piece)
                if more:
                    timer.reschedule(min(loop.time() + options.body_gap_timeout, last_moment))
    except TimeoutError:
        budget.give(request.caller, taken)
        raise RequestTimeout(
            f"The request body did not come: nothing for {options.body_gap_timeout:g} s, "
            f"or not all of it within {options.body_timeout:g} s. Send it again."
        ) from None
    except BaseException:
        budget.give(request.caller, taken)
        raise
    request.body_read = True
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
