"""Fake engines: HTTP/1.1 servers with behaviour defined by tests, which record the requests.

`FakeUpstream` runs in the test's own event loop, on a unix socket or a loopback port. As a program,
``python tests/support/fake_upstream.py (--socket PATH | --port N)`` is a process that tests kill or measure: it
responds at once, on uvloop, with an answer of fixed size, or with events for ``"stream": true``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Call", "FakeUpstream", "MakeUpstream", "completion", "delta"]


@dataclass
class Call:
    """A request, with methods to respond."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gateway closed the connection."""

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, data: Any, status: str = "200 OK", headers: str = "") -> None:
        body = json.dumps(data).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await self.raw(head.encode() + body)

    async def start_events(self) -> None:
        await self.raw(
            b"HTTP/1.1 200 OK\r\nServer: fake/1\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    async def event(self, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        await self.chunk(f"data: {text}\n\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def die(self) -> None:
        """Close the connection as a killed process does."""
        self.writer.transport.abort()


Behaviour = Callable[[Call], Awaitable[None]]


def completion(content: str, model: str = "fake") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def delta(content: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice]}


class FakeUpstream:
    """A server that calls `behave` for each request; by default it answers as an OpenAI server would."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.url = ""
        self.calls: list[Call] = []
        self.connections = 0
        self.called = asyncio.Event()
        self.behave: Behaviour = self.speak
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start_unix(self, path: Path) -> FakeUpstream:
        self._server = await asyncio.start_unix_server(self._serve, path)
        self.url = f"unix://{path}"
        return self

    async def start_tcp(self) -> FakeUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        """Close the listening socket and every connection, as a killed process does."""
        if self._server is not None:
            self._server.close()
        self.drop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop(self) -> None:
        """Close every connection, but go on listening."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def next_call(self) -> Call:
        """Return the newest call; wait until there is one."""
        await asyncio.wait_for(self.called.wait(), 30)
        self.called.clear()
        return self.calls[-1]

    async def speak(self, call: Call) -> None:
        """Respond like an engine."""
        if call.path == "/v1/embeddings":
            texts = call.json["input"]
            texts = [texts] if isinstance(texts, str) else texts
            data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25]} for i in range(len(texts))]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            await call.answer({"object": "list", "data": data, "model": "fake", "usage": usage})
        elif call.json.get("stream"):
            await call.start_events()
            for word in ("Hel", "lo", " world"):
                await call.event(delta(word))
            await call.event("[DONE]")
            await call.end()
        else:
            await call.answer(completion(f"{self.name} heard {call.json['model']}"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._one(reader, writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = [(n.lower(), v.strip()) for n, _, v in (x.partition(":") for x in lines)]
        length = int(dict(headers).get("content-length", "0"))
        body = await reader.readexactly(length)
        method, path, _ = line.split(" ")
        call = Call(method, path, headers, body, reader, writer)
        self.calls.append(call)
        self.called.set()
        watch = asyncio.create_task(self._watch(call))
        try:
            await self.behave(call)
        except ConnectionError:
            call.gone.set()
            raise
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if writer.transport.is_closing():
            raise ConnectionError

    @staticmethod
    async def _watch(call: Call) -> None:
        """Set `gone` when the connection is closed; the gateway sends nothing before it has its response."""
        while not call.reader.at_eof() and not call.writer.transport.is_closing():
            await asyncio.sleep(0.005)
        call.gone.set()


MakeUpstream = Callable[..., Awaitable[FakeUpstream]]
"""``await make("name", tcp=False)`` returns a started server, which is stopped at the test's end."""


class _Fast(asyncio.Protocol):
    """A minimal server for measurements of the gateway in front of it."""

    def __init__(self, size: int, events: int) -> None:
        body = json.dumps(completion("x" * size)).encode()
        self.plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body),
            body,
        )
        event = f"data: {json.dumps(delta('word'))}\n\n".encode()
        self.chunk = b"%x\r\n%s\r\n" % (len(event), event)
        self.events = events
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            if b'"stream":true' in body.replace(b" ", b""):
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                self.more(self.events)
            else:
                self.transport.write(self.plain)

    def more(self, left: int) -> None:
        if left:
            self.transport.write(self.chunk)
            asyncio.get_running_loop().call_soon(self.more, left - 1)
        else:
            self.transport.write(b"0\r\n\r\n")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--events", type=int, default=100)
    options = parser.parse_args()
    loop = asyncio.get_running_loop()

    def factory() -> _Fast:
        return _Fast(options.size, options.events)

    if options.socket:
        with contextlib.suppress(FileNotFoundError):
            Path(options.socket).unlink()
        server: Any = await loop.create_unix_server(factory, options.socket, backlog=1024)
    else:
        server = await loop.create_server(factory, "127.0.0.1", options.port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(uvloop.run(main()))
