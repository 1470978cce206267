"""Headers for browsers: answers are never pages, and only pages of listed origins may read them."""

from __future__ import annotations

import pytest

from llmos.errors import UsageError
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream
from tests.support.gateway import ADA, RunningGateway, running_gateway, service

APP = "https://app.example.org"
ASK = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def cors_of(answer) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}


@pytest.mark.parametrize(
    "path", ["/v1/models", "/services/llm/v1/models", "/nowhere", "/health", "/v1/chat/completions"]
)
async def test_no_answer_is_a_page(gateway: RunningGateway, upstreams: MakeUpstream, path: str) -> None:
    upstream = await upstreams()

    async def page(call: Call) -> None:
        body = b"<script>alert(1)</script>"
        await call.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )

    upstream.behave = page
    await gateway.add(service("chat", upstream))
    answer = await (gateway.chat() if path.endswith("completions") else gateway.get(path))
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    _, writer = await gateway.raw(b"")
    writer.close()
    reader, writer = await gateway.raw(b"nonsense\r\n\r\n")
    raw = await reader.read()
    assert b"content-security-policy: default-src 'none'" in raw
    assert b"x-content-type-options: nosniff" in raw
    writer.close()


async def test_by_default_no_other_origin_reads_anything(gateway: RunningGateway) -> None:
    assert (await gateway.http.options("/v1/chat/completions", headers=ASK)).status_code == 405
    answer = await gateway.http.get("/v1/models", headers={"origin": APP, "authorization": f"Bearer {ADA}"})
    assert cors_of(answer) == {}


async def test_a_named_origin_may_ask_and_read(store: Store, upstreams: MakeUpstream) -> None:
    options = GatewayOptions.from_environment(
        {"LLMOS_GATEWAY_ALLOWED_ORIGINS": f"{APP.upper()}, http://localhost:3000"}
    )
    async with running_gateway(store, options, [service("chat", await upstreams())]) as gateway:
        ahead = await gateway.http.options("/v1/chat/completions", headers=ASK)
        assert (ahead.status_code, ahead.content) == (204, b"")
        assert cors_of(ahead) == {
            "access-control-allow-origin": APP,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "authorization,content-type,x-stainless-os",
            "access-control-max-age": "600",
            "access-control-expose-headers": "retry-after, x-request-id",
        }
        answer = await gateway.post("/v1/chat/completions", {"model": "chat", "messages": []}, origin=APP)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == APP
        refused = await gateway.http.get("/v1/models", headers={"origin": APP})
        assert refused.status_code == 401  # a token is needed all the same, and the page may read why
        assert refused.headers["access-control-allow-origin"] == APP
        assert "origin" in refused.headers["vary"]
        for origin in ("https://evil.example.org", "null", f"{APP}.evil.org", f"{APP}:8443"):
            other = await gateway.http.options("/v1/chat/completions", headers={**ASK, "origin": origin})
            assert (other.status_code, cors_of(other)) == (405, {})
            other = await gateway.http.get("/v1/models", headers={"origin": origin, "authorization": f"Bearer {ADA}"})
            assert (other.status_code, cors_of(other)) == (200, {})
        assert "access-control-allow-origin" not in (await gateway.get("/v1/models")).headers


async def test_all_origins_never_with_credentials(store: Store) -> None:
    options = GatewayOptions.from_environment({"LLMOS_GATEWAY_ALLOWED_ORIGINS": "*"})
    async with running_gateway(store, options) as gateway:
        ahead = await gateway.http.options("/v1/models", headers=ASK)
        assert ahead.headers["access-control-allow-origin"] == APP
        assert "access-control-allow-credentials" not in ahead.headers


@pytest.mark.parametrize("value", ["app.example.org", "https://a.org/path", "https://a.org b", "https://u@a.org"])
def test_what_is_no_origin_is_refused_at_the_start(value: str) -> None:
    with pytest.raises(UsageError, match="LLMOS_GATEWAY_ALLOWED_ORIGINS"):
        GatewayOptions.from_environment({"LLMOS_GATEWAY_ALLOWED_ORIGINS": value})
