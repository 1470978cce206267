"""Requests to engines: the method and path of the route, and no header that is not listed."""

from __future__ import annotations

from typing import Any

from llmos_hub.gateway.heads import request_head
from llmos_hub.gateway.request import Request
from llmos_hub.gateway.routes import Route

HEADERS = {b"accept": b"audio/*", b"cookie": b"a=b", b"content-type": b"text/plain", b"authorization": b"Bearer x"}


def head(authorization: bytes = b"") -> bytes:
    client: Any = None
    request = Request("POST", "/v1/embeddings/", b"token=x", HEADERS, "id-1", client, 0.0)
    request.route = Route("POST", "/v1/embeddings")
    return request_head(request, 5, authorization)


def test_the_head_of_a_request() -> None:
    assert head(b"authorization: Bearer engine\r\n") == (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: llmos\r\nauthorization: Bearer engine\r\naccept: audio/*\r\n"
        b"content-type: application/json\r\ncontent-length: 5\r\nx-request-id: id-1\r\n\r\n"
    )
    assert b"authorization" not in head()
