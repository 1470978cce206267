"""Requests to engines: the method, path and type of the route and the request, and no header that is not listed."""

from __future__ import annotations

from typing import Any

import pytest

from llmos_hub.gateway.context import Context
from llmos_hub.gateway.heads import EngineRequest, request_head
from llmos_hub.gateway.proxy import forward
from llmos_hub.gateway.request import Request, read_body
from llmos_hub.gateway.routes import Route, Router
from llmos_hub.gateway.stages import authenticate
from tests.support.fake_upstream import Call, MakeUpstream
from tests.support.gateway import ADA, RunningGateway, service

HEADERS = {b"accept": b"audio/*", b"cookie": b"a=b", b"content-type": b"text/plain", b"authorization": b"Bearer x"}


def head(outgoing: EngineRequest, authorization: bytes = b"") -> bytes:
    client: Any = None
    return request_head(outgoing, Request("POST", "/x", b"", HEADERS, "id-1", client, 0.0), authorization)


@pytest.mark.parametrize(
    ("outgoing", "line", "about_the_body"),
    [
        (EngineRequest("GET", "/v1/responses/r1"), b"GET /v1/responses/r1", b""),
        (EngineRequest("DELETE", "/v1/responses/a%20b"), b"DELETE /v1/responses/a%20b", b""),
        (EngineRequest("POST", "/v1/responses/r1/cancel"), b"POST /v1/responses/r1/cancel", b"content-length: 0\r\n"),
        (
            EngineRequest("POST", "/v1/audio", b"multipart/form-data; boundary=x", b"--x--"),
            b"POST /v1/audio",
            b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 5\r\n",
        ),
        (
            EngineRequest("DELETE", "/v1/files", b"application/json", b"{}"),
            b"DELETE /v1/files",
            b"content-type: application/json\r\ncontent-length: 2\r\n",
        ),
    ],
)
def test_the_head_of_a_request(outgoing: EngineRequest, line: bytes, about_the_body: bytes) -> None:
    assert head(outgoing, b"authorization: Bearer engine\r\n") == (
        line
        + b" HTTP/1.1\r\nhost: llmos\r\nauthorization: Bearer engine\r\naccept: audio/*\r\n"
        + about_the_body
        + b"x-request-id: id-1\r\n\r\n"
    )
    assert b"authorization" not in head(outgoing)


async def test_a_route_of_any_method_and_type_reaches_the_engine(
    gateway: RunningGateway, upstreams: MakeUpstream
) -> None:
    upstream = await upstreams()

    async def answer(call: Call) -> None:
        await call.answer({"method": call.method, "path": call.path, "type": call.header("content-type")})

    upstream.behave = answer
    await gateway.add(service("chat", upstream))

    async def pass_on(request: Request, context: Context) -> None:
        rights = await authenticate(request, context)
        body = await read_body(request, context.options, context.budget)
        target, kind = request.route.fill(request.parameters), request.headers.get(b"content-type", b"")
        outgoing = EngineRequest(request.route.method, target, kind, body)
        await forward(request, context.table.resolve(rights, "chat"), outgoing)
        context.budget.give(rights.caller.name, len(body))

    made_up = (
        Route("GET", "/v1/responses/{id}"),
        Route("DELETE", "/v1/responses/{id}"),
        Route("POST", "/v1/audio/transcriptions"),
    )
    gateway.gateway._router = Router(dict.fromkeys(made_up, pass_on))
    headers = {"authorization": f"Bearer {ADA}"}
    for prefix in ("", "/services/llm"):
        for method in ("GET", "DELETE"):
            answered = await gateway.http.request(method, f"{prefix}/v1/responses/a%20%C3%A4?token=x", headers=headers)
            assert answered.json() == {"method": method, "path": "/v1/responses/a%20%C3%A4", "type": None}
        refused = await gateway.http.put(f"{prefix}/v1/responses/a", headers=headers)
        assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET")
        assert (await gateway.http.get(f"{prefix}/v1/responses/a%2Fb", headers=headers)).status_code == 404
        form = {"file": ("a.wav", b"RIFF")}
        spoken = await gateway.http.post(f"{prefix}/v1/audio/transcriptions", files=form, headers=headers)
        assert spoken.json()["type"].startswith("multipart/form-data; boundary=")
        assert b"RIFF" in upstream.calls[-1].body
    metrics = await gateway.http.get("/metrics")
    assert metrics.status_code == 404  # it is no route of this table
    assert {"GET", "DELETE", "POST"} == {call.method for call in upstream.calls}
