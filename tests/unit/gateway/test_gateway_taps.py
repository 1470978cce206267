"""Taps see an answer's body as it is passed on, and one that changes nothing leaves no trace."""

from __future__ import annotations

from typing import ClassVar

import httpx
import pytest

from llmos_hub.gateway import stages
from llmos_hub.gateway.stages import ModelRequest
from llmos_hub.gateway.taps import Tap
from tests.support.fake_upstream import Call, MakeUpstream, completion, delta
from tests.support.gateway import RunningGateway, service


class Observer:
    """A tap that remembers what it saw."""

    changes: ClassVar[bool] = False

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False

    def feed(self, data: bytes, *, last: bool) -> bytes:
        assert not self.ended
        self.pieces.append(data)
        self.ended = last
        return data


class Shouting:
    """A tap that changes what passes."""

    changes: ClassVar[bool] = True

    def feed(self, data: bytes, *, last: bool) -> bytes:
        return data.upper() + (b"!" if last else b"")


def tap(monkeypatch: pytest.MonkeyPatch, *taps: Tap) -> None:
    """Add taps to all requests, behind those that they have."""

    original = stages.rewrite

    async def rewrite(call: ModelRequest) -> None:
        await original(call)
        call.outgoing.taps += taps

    monkeypatch.setattr(stages, "rewrite", rewrite)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_observer_sees_every_byte_and_the_end(
    gateway: RunningGateway, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    await gateway.add(service("chat", await upstreams()))
    plain = await gateway.chat(stream=stream)
    observer = Observer()
    tap(monkeypatch, observer)
    observed = await gateway.chat(stream=stream)
    assert observed.content == plain.content == b"".join(observer.pieces)
    assert observed.headers.get("content-length") == plain.headers.get("content-length")
    assert observer.ended


async def test_a_tap_sees_what_those_before_it_made(
    gateway: RunningGateway, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await upstreams()

    async def speak(call: Call) -> None:
        await call.answer(completion("hi", model="tiny"))

    upstream.behave = speak
    await gateway.add(service("tiny", upstream, namespace="public"))
    observer = Observer()
    tap(monkeypatch, Shouting(), observer)
    answer = await gateway.chat("public/tiny")
    assert answer.content == b"".join(observer.pieces)
    assert b'"MODEL": "PUBLIC/TINY"' in answer.content  # the name was given before
    assert answer.content.endswith(b"}!")
    assert "content-length" not in answer.headers


async def test_an_answer_that_breaks_off_has_no_last_piece(
    gateway: RunningGateway, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await upstreams()

    async def die(call: Call) -> None:
        await call.start_events()
        await call.event(delta("first"))
        await call.chunk(b"data: {not whole")
        call.die()

    upstream.behave = die
    await gateway.add(service("chat", upstream))
    observer = Observer()
    tap(monkeypatch, observer)
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.chat(stream=True)
    assert not observer.ended


async def test_an_encoded_answer_is_passed_by_the_taps(
    gateway: RunningGateway, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await upstreams()

    async def encoded(call: Call) -> None:
        await call.answer({"model": "x"}, headers="Content-Encoding: identity\r\n")

    upstream.behave = encoded
    await gateway.add(service("chat", upstream))
    observer = Observer()
    tap(monkeypatch, observer, Shouting())
    answer = await gateway.chat()
    assert answer.json() == {"model": "x"}
    assert "content-length" in answer.headers
    assert observer.pieces == []
