"""The heads of HTTP messages as the gateway sends them: a request's for the engine, an answer's for the client.

Headers of the other side are passed on only if they are listed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmos_hub.gateway.connection import Head
from llmos_hub.gateway.request import Headers, Request
from llmos_hub.gateway.taps import Tap

__all__ = ["EVENT_STREAM", "EngineRequest", "request_head", "response_headers"]

EVENT_STREAM: Final = b"text/event-stream"
_TO_ENGINE: Final = (b"accept", b"traceparent", b"tracestate")
"""Headers of a client that are sent to the engine. Tokens, cookies, addresses and whatever a proxy in front adds are
dropped without being listed."""
_TO_CLIENT: Final = (b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"allow")
"""Headers of an engine that are sent to the client: no cookies, since everybody's pages share the Hub's origin."""
_WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses of answers without a body, whatever length an engine declares (RFC 9110, section 6.4.1)."""
_BODY_UNUSUAL: Final = frozenset({"GET", "DELETE"})
"""Methods of requests that declare no length if they have no body (RFC 9110, section 8.6)."""


@dataclass(slots=True, eq=False)
class EngineRequest:
    """A request for an engine, which may be sent to several replicas until one answers.

    Attributes
    ----------
    method, target
        The method, and the path with its special characters percent-encoded.
    content_type, body
        The type of the body, and the body; both empty if there is none.
    taps
        The taps of the answer, in the order in which they are fed.
    affinity
        The key for the balancer; see `llmos_hub.gateway.balancers.Balancer.choose`.
    """

    method: str
    target: str
    content_type: bytes = b""
    body: bytes = b""
    taps: tuple[Tap, ...] = ()
    affinity: str | None = None


def request_head(outgoing: EngineRequest, request: Request, authorization: bytes) -> bytes:
    """Return the request line and headers for the engine.

    Parameters
    ----------
    request
        The client's request.
    authorization
        The header line that authenticates the gateway to the engine; empty if it needs none.
    """
    given = request.headers  # values come from the server's parser, so they contain no line breaks
    line = f"{outgoing.method} {outgoing.target} HTTP/1.1\r\nhost: llmos\r\n".encode()
    lines = [line, authorization]
    for name in _TO_ENGINE:
        if name in given:
            lines += (name, b": ", given[name], b"\r\n")
    if outgoing.content_type:
        lines += (b"content-type: ", outgoing.content_type, b"\r\n")
    if outgoing.body or outgoing.method not in _BODY_UNUSUAL:
        lines.append(b"content-length: %d\r\n" % len(outgoing.body))
    lines.append(b"x-request-id: %s\r\n\r\n" % request.id.encode())
    return b"".join(lines)


def response_headers(head: Head, *, whole: bool) -> Headers:
    """Return the headers for the client; with a length only if the answer is passed on `whole`, that is unchanged."""
    given = head.headers
    headers: Headers = [(name, given[name]) for name in _TO_CLIENT if name in given]
    if whole and b"content-length" in given and b"transfer-encoding" not in given and head.status not in _WITHOUT_BODY:
        headers.append((b"content-length", given[b"content-length"]))
    if given.get(b"content-type", b"").startswith(EVENT_STREAM):
        if b"cache-control" not in given:
            headers.append((b"cache-control", b"no-cache"))
        headers.append((b"x-accel-buffering", b"no"))  # nginx and Ingresses would buffer the events otherwise
    return headers
