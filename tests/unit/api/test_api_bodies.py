"""Request bodies that are too large, too deep, too slow, or not of their media type."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest

from llmos.errors import Invalid
from llmos_hub.api import bodies
from tests.unit.api.conftest import Api, causes_of, manifest, models, status_of, token_of

JSON = {"content-type": "application/json"}
APPLY = {"content-type": "application/apply-patch+yaml"}


async def test_json_that_is_none(ada: httpx.AsyncClient) -> None:
    response = await ada.post(models(), content=b'{"metadata": {\n  "name": chat}}', headers=JSON)
    assert status_of(response)[:2] == (422, "invalid")
    assert "line 2, column 11" in response.json()["message"]
    for body in (b"\xff\xfe{", b'{"a": NaN}', b"[" * 100_000, b"nonsense"):
        assert status_of(await ada.post(models(), content=body, headers=JSON))[:2] == (422, "invalid")
    for body in (b"[]", b'"x"', b"7", b"null"):
        assert status_of(await ada.post(models(), content=body, headers=JSON))[:2] == (422, "invalid")
    assert "no body" in status_of(await ada.post(models(), headers=JSON))[2]


async def test_yaml(ada: httpx.AsyncClient) -> None:
    text = "metadata: {name: chat}\nspec:\n  model: demo://tiny\n  resources: {memory: 2GiB}\n"
    response = await ada.post(models(), content=text, headers={"content-type": "application/yaml; charset=utf-8"})
    assert set(causes_of(response)) == {"spec.resources.memory"}
    response = await ada.patch(models(name="chat"), content="spec: [1, 2\nmodel: x", headers=APPLY)
    assert status_of(response)[:2] == (422, "invalid")
    assert "line 2" in response.json()["message"]
    for text in (
        "!!python/object/apply:os.system [echo]",
        "a: !!python/name:os.system x",
        "[" * 5000,
        "a: &x 1\nb: *x",
        "\x00",
    ):
        assert status_of(await ada.patch(models(name="chat"), content=text, headers=APPLY))[:2] == (422, "invalid")


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: 0x" + "f" * 6_000,
        "spec: {replicas: 1" + ":59" * 150_000 + "}",
        "spec: {replicas: 1" + ":59" * 20_000 + ".5}",
        "a: !!int '" + "7" * 5_000 + "'",
    ],
    ids=["hexadecimal", "base 60", "fraction in base 60", "decimal"],
)
async def test_numbers_without_end(ada: httpx.AsyncClient, text: str) -> None:
    began = time.process_time()
    response = await ada.patch(models(name="chat"), content=text, headers=APPLY)
    assert status_of(response)[:2] == (422, "invalid")
    assert "too long" in response.json()["message"]
    assert time.process_time() - began < 5
    fine = await bodies.decode(b"{a: 0x1f, b: 1:30, c: -1.5e+3, d: .inf, e: 010}", bodies.YAML)
    assert fine == {"a": 31, "b": 90, "c": -1500.0, "d": float("inf"), "e": 8}


@pytest.mark.parametrize(
    "value",
    [
        "!!int ''",
        "!!int x",
        "!!int '-'",
        "!!int '0b'",
        "!!int '1:x'",
        "!!float ''",
        "!!float x",
        "!!bool maybe",
        "!!bool ''",
        "!!timestamp x",
        "2026-99-99",
        "2026-01-01T99:00:00Z",
        "!!binary é",
        "!!omap x",
        "!!set [a]",
        "!!pairs [[a]]",
        "!!map x",
        "{[a]: b}",
        "{? {a: b} : c}",
        "!unknown x",
    ],
)
async def test_values_that_do_not_fit_their_tag(ada: httpx.AsyncClient, value: str) -> None:
    for text in (f"spec: {{model: demo://tiny, replicas: {value}}}", f"a: [b, {value}]", value):
        response = await ada.patch(models(name="chat"), content=text.encode(), headers=APPLY)
        assert status_of(response)[:2] == (422, "invalid"), text


async def test_a_value_that_does_not_fit_its_tag_is_found(ada: httpx.AsyncClient) -> None:
    text = "spec:\n  model: demo://tiny\n  replicas: !!int ''\n"
    message = status_of(await ada.patch(models(name="chat"), content=text, headers=APPLY))[2]
    assert "line 3, column 13" in message
    assert '"" is no int' in message


async def test_half_a_character(ada: httpx.AsyncClient) -> None:
    for field in ('"annotations": {"a": "\\ud800"}', '"annotations": {"\\udfff": "a"}', '"labels": {"a": "\\ud800"}'):
        body = '{"metadata": {"name": "chat", FIELD}, "spec": {"model": "demo://tiny"}}'.replace("FIELD", field)
        response = await ada.post(models(), content=body, headers=JSON)
        assert status_of(response)[:2] == (422, "invalid")
        assert "half a character" in response.json()["message"]
        assert set(causes_of(response)) <= {"metadata.annotations.a", "metadata.annotations", "metadata.labels.a"}
    body = '{"metadata": {"name": "whole", "annotations": {"a": "\\ud83d\\ude00"}}, "spec": {"model": "demo://tiny"}}'
    assert (await ada.post(models(), content=body, headers=JSON)).status_code == 201


async def test_a_small_body_that_would_become_gigabytes(ada: httpx.AsyncClient) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    response = await ada.patch(models(name="chat"), content="\n".join(lines), headers=APPLY)
    assert status_of(response)[:2] == (422, "invalid")
    assert "aliases" in response.json()["message"]


async def test_media_types(ada: httpx.AsyncClient) -> None:
    response = await ada.post(models(), content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    assert status_of(response)[:2] == (415, "unsupported_media_type")
    response = await ada.patch(models(name="chat"), json={"spec": {}})
    assert status_of(response)[:2] == (415, "unsupported_media_type")
    assert "application/merge-patch+json" in response.json()["message"]


async def test_bodies_are_bounded(api: Api, ada: httpx.AsyncClient) -> None:
    api.environ["LLMOS_SETTING_API_MAX_BODY_BYTES"] = "65536"
    body = json.dumps(manifest(env={"A": "x" * 70_000})).encode()
    response = await ada.post(models(), content=body, headers=JSON)
    assert status_of(response)[:2] == (413, "payload_too_large")
    assert "65536" in response.json()["message"]

    async def chunks():
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    assert status_of(await ada.post(models(), content=chunks(), headers=JSON))[:2] == (413, "payload_too_large")
    fits = json.dumps(manifest(args=["x" * 4000] * 10)).encode()
    assert (await ada.post(models(), content=fits, headers=JSON)).status_code == 201


async def test_an_endless_body_is_not_read_to_its_end(api: Api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {models()} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token_of('ada')}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: 9999999999\r\n\r\n".encode())
    line = await asyncio.wait_for(reader.readline(), 30)
    assert b" 413 " in line
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_never_comes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_TIMEOUT", 0.1)
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {models()} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token_of('ada')}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode())
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 20)
    assert b"did not arrive within" in await asyncio.wait_for(reader.readuntil(b"seconds."), 20)
    writer.close()
    await writer.wait_closed()


async def test_much_yaml_does_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ("a:\n" + "  - {b: c}\n" * 60_000).encode()
    others_ran = threading.Event()
    parse = bodies._yaml

    def parse_once_others_ran(body: bytes) -> Any:
        assert others_ran.wait(30), "the event loop stood still"
        return parse(body)

    monkeypatch.setattr(bodies, "_yaml", parse_once_others_ran)
    decoding = asyncio.create_task(bodies.decode(text, bodies.YAML))
    await asyncio.sleep(0)  # the task begins
    asyncio.get_running_loop().call_later(0.01, others_ran.set)
    assert len((await decoding)["a"]) == 60_000


@pytest.mark.parametrize("depth", [100_000, 500_000])
@pytest.mark.parametrize("media_type", [bodies.JSON, bodies.YAML])
async def test_no_depth_ends_the_process(depth: int, media_type: str) -> None:
    for opening in (b"[", b'{"a":', b"- ", b"? "):
        with pytest.raises(Invalid):
            await bodies.decode(opening * (depth // len(opening)), media_type)
