"""Messages about exceptions of libraries: enough to act on, and nothing of the data that was sent."""

from __future__ import annotations

import socket
import threading

import aiohttp
import httpcore
import httpx
import pytest
from redis import asyncio as redis

from llmos_hub.failures import reason, where_it_failed

SECRET = "hf_0123456789abcdef"


def refused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_an_illegal_header_is_not_quoted():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(httpx.LocalProtocolError) as raised:
            httpx.get(url, headers={"authorization": f"Bearer {SECRET}\n"}, trust_env=False)
    assert SECRET in str(raised.value)  # the reason why the library's own message isn't passed on
    assert "line end in a token" in reason(raised.value)
    assert SECRET not in reason(raised.value) + where_it_failed(raised.value)
    assert "LocalProtocolError" in where_it_failed(raised.value)


def test_an_address_with_a_password_is_not_quoted():
    url = f"https://ada:{SECRET}@[::1/"
    with pytest.raises(httpx.InvalidURL) as raised:
        httpx.URL(url)
    assert reason(raised.value) == "the address can't be read"
    for error in (httpx.ConnectError(url), aiohttp.ClientConnectionError(url), ValueError(url), KeyError(SECRET)):
        assert SECRET not in reason(error)


async def test_what_the_system_says_is_passed_on():
    port = refused_port()
    with pytest.raises(httpx.ConnectError) as sync:
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError) as without_sync:
            await client.get(f"http://127.0.0.1:{port}/")
    async with httpcore.AsyncConnectionPool() as pool:
        with pytest.raises(httpcore.ConnectError) as bare:
            await pool.request("GET", f"http://127.0.0.1:{port}/")
    database = redis.Redis(port=port, retry=None)
    with pytest.raises(redis.ConnectionError) as stored:
        await database.ping()
    await database.aclose()
    for raised in (sync, bare, stored):
        assert reason(raised.value) == "Connection refused"
    assert reason(without_sync.value) in {"Connection refused", "the connection failed"}
    assert reason(socket.gaierror(-2, f"no {SECRET}")) == "the name can't be resolved"


def test_silence_and_a_broken_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(httpx.ReadTimeout) as silent:
            httpx.get(url, timeout=0.05, trust_env=False)
        answering = threading.Thread(target=lambda: _answer(server, b"no HTTP\r\n\r\n"))
        answering.start()
        with pytest.raises(httpx.RemoteProtocolError) as broken:
            httpx.get(url, trust_env=False)
        answering.join()
    assert reason(silent.value) == "no answer in time"
    assert reason(broken.value) == "the answer broke off or was no HTTP"


def _answer(server: socket.socket, what: bytes) -> None:
    for _ in range(2):  # the first message is about the request that gave up
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(what)
