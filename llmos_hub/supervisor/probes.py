"""Health probes over plain sockets: the supervisor stays small without an HTTP or Redis client."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from llmos_hub.valkey.resp import ask

__all__ = ["Answer", "HttpProbe", "Probe", "RedisProbe", "Silence", "error_words", "http_request"]

_LIMIT = 256 * 1024  # bytes of an answer that are read


class Silence(str):
    """A probe's error for a process that accepts a connection but doesn't answer."""

    __slots__ = ()


class Probe(Protocol):
    """A check of a process's health."""

    async def check(self) -> str | None:
        """Return None if the process is healthy, otherwise an error in a few words; takes no longer than the timeout."""
        ...


def error_words(error: OSError) -> str:
    """Return the system's message for an error, without the address that asyncio adds."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes
    ----------
    status
        The HTTP status.
    body
        The first 256 KiB of the body.
    """

    status: int
    body: bytes


async def http_request(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 5.0,
) -> Answer:
    """Send one request over plain TCP.

    Raises
    ------
    OSError
        There is no answer, not in time (then a TimeoutError), or it isn't HTTP.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # HTTP/1.0: the answer ends with the connection and is never chunked
    lines = [f"{method} {target} HTTP/1.0", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
            received = bytearray()
            # read the answer to its end: a server whose client hangs up early may log an error
            while data := await reader.read(65536):
                received += data[: max(0, _LIMIT - len(received))]
        finally:
            await _close(writer)
    head, _, content = bytes(received).partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("no HTTP answer")
    return Answer(int(words[1]), content)


@dataclass(frozen=True)
class HttpProbe:
    """A GET that must be answered with 2xx.

    Attributes
    ----------
    url
        The URL.
    timeout
        Seconds to wait; longer than pauses by garbage collection or a busy machine.
    headers
        Headers of the request.
    """

    url: str
    timeout: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict)

    async def check(self) -> str | None:
        """Send the request."""
        try:
            answer = await http_request(self.url, headers=self.headers, timeout=self.timeout)
        except TimeoutError:
            return Silence(f"no answer within {self.timeout:g} s")
        except OSError as exc:
            return error_words(exc)
        return None if 200 <= answer.status < 300 else f"answers with HTTP {answer.status}"


@dataclass(frozen=True)
class RedisProbe:
    """A ``PING`` that must be answered with ``PONG``.

    Attributes
    ----------
    url
        ``unix://:PASSWORD@/path`` or ``redis://[USER]:PASSWORD@host:port``.
    timeout
        Seconds to wait.
    """

    url: str
    timeout: float = 5.0

    async def check(self) -> str | None:
        """Send the command."""
        try:
            async with asyncio.timeout(self.timeout):
                answer = (await ask(self.url, ("PING",)))[0]
        except TimeoutError:
            return Silence(f"no answer within {self.timeout:g} s")
        except OSError as exc:
            return error_words(exc)
        return None if answer == "PONG" else str(answer)
