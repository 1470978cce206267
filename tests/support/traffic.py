"""Clients of a gateway under continuous load, with a record of requests and failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["Tally", "Traffic"]

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_PER_CONNECTION = 200
"""Requests after which a client under load opens a new connection, which may lead to another replica."""


@dataclass
class Tally:
    """Requests and failures by kind of client."""

    asked: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    """Number of responses that asked to retry later, as an overloaded gateway or Hub sends them."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Bodies of those responses."""
    sent_elsewhere: int = 0
    """Number of responses on kept connections that announced the connection's end."""

    def __str__(self) -> str:
        """Return the figures as a sentence."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.asked.items()))
        ended = f"{self.sent_elsewhere} kept connections were ended"
        return f"{kinds}; {ended}; {self.refused} told to come again, {len(self.failures)} lost"


class Traffic:
    """Clients of one user.

    Parameters
    ----------
    url
        The gateway's URL.
    token
        The user's token.
    """

    def __init__(self, url: str, token: str) -> None:
        self.tally = Tally()
        self._began = time.monotonic()
        self._kept: list[httpx.AsyncClient] = []
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": {"Authorization": f"Bearer {token}"},
            "timeout": _TIMEOUT,
            "trust_env": False,
            "limits": httpx.Limits(keepalive_expiry=600),
        }

    @contextlib.asynccontextmanager
    async def running(self, *clients: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Run these clients repeatedly during the block; wait for running requests at the end."""
        stopped = asyncio.Event()

        async def repeat(client: Callable[[], Awaitable[None]]) -> None:
            while not stopped.is_set():
                await client()

        tasks = [asyncio.create_task(repeat(client)) for client in clients]
        try:
            yield
        finally:
            stopped.set()
            await asyncio.gather(*tasks)
            while self._kept:
                await self._kept.pop().aclose()

    # Clients

    async def load(self) -> None:
        """Send many small requests, each as soon as the previous one is answered."""
        await self._small("under load", _PER_CONNECTION)

    async def arrive(self) -> None:
        """Send one small request on its own connection, which may reach a replica that is about to stop."""
        await self._small("that just came", 1)
        await asyncio.sleep(0.15)

    async def _small(self, kind: str, count: int) -> None:
        """Send requests on one connection, written by hand so that they cost the gateway more than the client."""
        url = httpx.URL(self._options["base_url"])
        token = self._options["headers"]["Authorization"]
        request = f"GET /v1/models HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: {token}\r\n\r\n".encode()
        try:
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection(url.host, url.port)
                try:
                    for _ in range(count):
                        self.tally.asked[kind] += 1
                        writer.write(request)
                        if not await self._small_answer(kind, reader):
                            break
                finally:
                    writer.close()
        except (OSError, TimeoutError, EOFError) as error:
            self._failed(kind, repr(error))

    async def _small_answer(self, kind: str, reader: asyncio.StreamReader) -> bool:
        """Read a response; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"http/1.1 200 "):
            await self._not_ok(kind, int(head.split()[1]), body.decode())
        return b"connection: close" not in head

    async def chat(self, model: str) -> None:
        """Send a chat request on its own connection."""
        async with httpx.AsyncClient(**self._options) as http:
            await self._one("chats", lambda: http.post("/v1/chat/completions", json=_chat(model, 4)))
        await asyncio.sleep(1.0)

    async def stream(self, kind: str, model: str, tokens: int) -> None:
        """Send a streamed chat request on its own connection."""
        async with httpx.AsyncClient(**self._options) as http:
            body = _chat(model, tokens, stream=True)
            await self._one(kind, lambda: http.post("/v1/chat/completions", json=body), ends=b"data: [DONE]\n\n")
        await asyncio.sleep(1.0)

    def keeping(self, model: str, longest: float) -> Callable[[], Awaitable[None]]:
        """Return a client that keeps its connection and chats occasionally, at least every `longest` seconds."""
        http = httpx.AsyncClient(**self._options)
        self._kept.append(http)
        rng = random.Random(len(self._kept))

        async def chat() -> None:
            answer = await self._one(
                "chats on kept connections", lambda: http.post("/v1/chat/completions", json=_chat(model, 4))
            )
            if answer is not None and answer.headers.get("connection") == "close":
                self.tally.sent_elsewhere += 1
            await asyncio.sleep(rng.uniform(0.3, longest))

        return chat

    async def _one(
        self, kind: str, ask: Callable[[], Awaitable[httpx.Response]], *, ends: bytes = b""
    ) -> httpx.Response | None:
        self.tally.asked[kind] += 1
        try:
            answer = await ask()
        except httpx.HTTPError as error:
            self._failed(kind, repr(error))
            return None
        if answer.status_code != 200:
            await self._not_ok(kind, answer.status_code, answer.text)
        elif not answer.content.endswith(ends):
            self._failed(kind, f"ended with {answer.content[-60:]!r}")
        return answer

    async def _not_ok(self, kind: str, status: int, body: str) -> None:
        if status in (429, 503):
            self.tally.refused += 1
            self.tally.reasons[body[:200]] += 1
            await asyncio.sleep(1.0)
        else:
            self._failed(kind, f"{status} {body[:200]}")

    def _failed(self, kind: str, why: str) -> None:
        self.tally.failures.append(f"{time.monotonic() - self._began:.1f} s, {kind}: {why}")


def _chat(model: str, tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, **more}
