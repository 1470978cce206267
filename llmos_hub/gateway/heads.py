"""The heads of HTTP messages as the gateway sends them: a request's for the engine, an answer's for the client.

Headers of the other side are passed on only if they are listed here.
"""

from __future__ import annotations

from typing import Final

from llmos_hub.gateway.connection import Head
from llmos_hub.gateway.request import Headers, Request

__all__ = ["EVENT_STREAM", "request_head", "response_headers"]

EVENT_STREAM: Final = b"text/event-stream"
_TO_ENGINE: Final = (b"accept", b"traceparent", b"tracestate")
"""Headers of a client that are sent to the engine. Tokens, cookies, addresses and whatever a proxy in front adds are
dropped without being listed."""
_TO_CLIENT: Final = (b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"allow")
"""Headers of an engine that are sent to the client: no cookies, since everybody's pages share the Hub's origin."""
_WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses of answers without a body, whatever length an engine declares (RFC 9110, section 6.4.1)."""


def request_head(request: Request, length: int, authorization: bytes) -> bytes:
    """Return the request line and headers for the engine.

    The body was found to be JSON, whatever type the client declared: ``curl -d`` declares a form, and llama.cpp accepts
    no large forms.

    Parameters
    ----------
    request
        The client's request; the engine gets the one of its route.
    length
        The length of the body in bytes.
    authorization
        The header line that authenticates the gateway to the engine; empty if it needs none.
    """
    given = request.headers  # values come from the server's parser, so they contain no line breaks
    line = f"{request.route} HTTP/1.1\r\nhost: llmos\r\n".encode()
    lines = [line, authorization]
    for name in _TO_ENGINE:
        if name in given:
            lines += (name, b": ", given[name], b"\r\n")
    lines.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % length)
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
