"""No request makes an engine fetch media from inside the network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.errors import BadRequest, Invalid
from llmos_hub.gateway.body import SMALL
from llmos_hub.gateway.media import check_media
from tests.support.fake_upstream import MakeUpstream
from tests.support.gateway import ADA, RunningGateway, service

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def asked(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": list(parts)}], **more}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


FORBIDDEN = [
    image("http://127.0.0.1:8081/hub/api/"),
    image("HTTPS://169.254.169.254/latest/meta-data"),
    image("http://[::1]/"),
    image("file:///etc/passwd"),
    image("ftp://example.org/a.png"),
    image(" http://127.0.0.1/"),
    image("//127.0.0.1/"),
    image(""),
    {"type": "image_url", "image_url": "http://127.0.0.1/"},
    {"type": "video_url", "video_url": {"url": "http://127.0.0.1/"}},
    {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1/", "data": PICTURE}},
    {"type": "file", "file": {"file_url": "http://127.0.0.1/"}},
    {"type": "x", "x": [{"y": {"Image_URL": "http://127.0.0.1/"}}]},
]


@pytest.mark.parametrize("part", FORBIDDEN, ids=lambda part: json.dumps(part)[:60])
@pytest.mark.parametrize("padding", [0, SMALL])
async def test_addresses_are_refused(
    gateway: RunningGateway, upstreams: MakeUpstream, part: dict[str, Any], padding: int
) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    body = asked({"type": "text", "text": "what is it?" + " " * padding}, image(PICTURE), part)
    answer = await gateway.post("/v1/chat/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "bad_request")
    assert error["param"].startswith("messages[0].content[2].")
    assert "data:image/png;base64,…" in error["message"]
    assert upstream.calls == []


@pytest.mark.parametrize("padding", [0, SMALL])
async def test_however_it_is_written(gateway: RunningGateway, upstreams: MakeUpstream, padding: int) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    text = json.dumps(asked(image("http://127.0.0.1/"), x=" " * padding))
    for old, new in (
        ("image_url", "image\\u005furl"),
        ('"url"', '"\\u0075rl"'),
        ("http:", "\\u0068ttp:"),
        ("://", ":\\/\\/"),
    ):
        content = text.replace(old, new).encode()
        answer = await gateway.http.post(
            "/v1/chat/completions", content=content, headers={"authorization": f"Bearer {ADA}"}
        )
        assert answer.status_code == 400, new
    assert upstream.calls == []


@pytest.mark.parametrize(
    "body",
    [
        asked(image(PICTURE), image("DATA:image/png;base64,AAAA")),
        asked({"type": "text", "text": 'look at "url": "http://127.0.0.1/" and image_url'}),
        {**asked(), "messages": [{"role": "user", "content": '{"image_url": "http://127.0.0.1/"}'}]},
        asked(tools=[{"type": "function", "function": {"name": "f", "default": {"url": "https://example.org"}}}]),
        {
            **asked(),
            "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": '{"url": "http://x"}'}}]}],
        },
        asked(metadata={"url": "https://example.org"}),
    ],
)
async def test_what_is_no_picture_s_address_passes(
    gateway: RunningGateway, upstreams: MakeUpstream, body: dict[str, Any]
) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    assert (await gateway.post("/v1/chat/completions", body)).status_code == 200
    assert upstream.calls[0].json == body


async def test_hosts_that_the_model_names_are_allowed(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    await gateway.add(service("chat", await upstreams(), mediaHosts=["images.example.org"]))
    for url, status in {
        "https://images.example.org/a.png?x=1#y": 200,
        "http://IMAGES.example.org:8080/a.png": 200,
        "https://images.example.org": 200,
        "https://images.example.org@127.0.0.1/a.png": 400,
        "https://127.0.0.1\\@images.example.org/": 400,
        "https://images.example.org.evil.org/": 400,
        "https://images.example.org\n/": 400,
        "https://example.org/": 400,
        "file://images.example.org/": 400,
    }.items():
        assert (await gateway.post("/v1/chat/completions", asked(image(url)))).status_code == status, url


def test_a_host_is_checked_when_it_is_written() -> None:
    with pytest.raises(Invalid, match="not the name of a host"):
        service("chat", mediaHosts=["https://images.example.org/"])


@pytest.mark.parametrize("key", ["URL", "Image_Url", "uRl"])
def test_a_large_body_s_fields_are_known_in_letters_of_any_case(key: str) -> None:
    body = json.dumps(asked({"type": "x", "x": {key: "http://127.0.0.1/"}}, x=" " * SMALL)).encode()
    with pytest.raises(BadRequest, match=rf"messages\[0\].content\[0\].x.{key}: this model may not fetch media from"):
        check_media(body, None, ())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("[" * 1500 + "]" * 1500, "nested too deep"),
        ("[" * 200_000 + "]" * 200_000, "nested too deep"),
        ("1" * 5000, "can't be read: Exceeds the limit"),
        ("[1,]", "can't be read: Expecting value"),
    ],
    ids=["deep", "very deep", "a long number", "no JSON"],
)
async def test_a_large_body_that_cannot_be_looked_into_is_refused(
    gateway: RunningGateway, upstreams: MakeUpstream, extra: str, says: str
) -> None:
    """An engine may be able to parse a body that the gateway can't."""
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    body = json.dumps(asked(image("http://127.0.0.1/"), x=" " * SMALL))[:-1] + f', "deep": {extra}}}'
    answer = await gateway.http.post(
        "/v1/chat/completions", content=body.encode(), headers={"authorization": f"Bearer {ADA}"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert says in answer.json()["error"]["message"]
    assert upstream.calls == []


@pytest.mark.parametrize("padding", [0, SMALL])
def test_an_address_that_lies_deep_is_refused_too(padding: int) -> None:
    part: Any = image("http://127.0.0.1/")
    for _ in range(480):
        part = {"x": part}
    body = asked(part, x=" " * padding)
    with pytest.raises(BadRequest):
        check_media(json.dumps(body).encode(), None if padding else body, ())


def test_a_large_body_is_not_decoded_for_long() -> None:
    """A body that would take long to decode is refused, however its fields are named; long data takes no time."""
    check_media(json.dumps(asked(image("data:image/png;base64," + "A" * 5_000_000))).encode(), None, ())
    many = json.dumps({**asked(image(PICTURE)), "x": [0] * 200_000}).encode()
    with pytest.raises(BadRequest, match="more than 100,000 fields"):
        check_media(many, None, ())
    check_media(json.dumps({"messages": "no addresses", "x": [0] * 200_000}).encode(), None, ())
