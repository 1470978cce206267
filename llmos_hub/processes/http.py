"""One connection and one HTTP request over a plain socket: probes need neither a client library nor its memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

__all__ = ["NoHTTP", "Response", "connected", "http_request"]

_LIMIT = 256 * 1024  # bytes of an answer that are read


class NoHTTP(OSError):
    """An answer that isn't HTTP.

    Attributes
    ----------
    empty
        True if the other side hung up without a word.
    """

    def __init__(self, *, empty: bool) -> None:
        super().__init__("no HTTP answer")
        self.empty = empty


@dataclass(frozen=True)
class Response:
    """An HTTP answer.

    Attributes
    ----------
    status
        The HTTP status.
    body
        The first 256 KiB of the body.
    """

    status: int
    body: bytes = b""

    @property
    def good(self) -> bool:
        """True for any 2xx."""
        return 200 <= self.status < 300


@contextlib.asynccontextmanager
async def connected(
    url: str, port: int = 80, *, tls: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the host and port of a URL, or to the socket of ``unix:///path``, and close the connection again."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(unquote(parts.path))
    else:
        host = parts.hostname or "127.0.0.1"
        reader, writer = await asyncio.open_connection(host, parts.port or port, ssl=tls or None)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def http_request(
    url: str,
    target: str | None = None,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 5.0,
    whole: bool = True,
) -> Response:
    """Send one request.

    Parameters
    ----------
    url
        ``http://host:port/path?query``, or ``unix:///path`` of a socket.
    target
        Path and query, if not those of `url`.
    timeout
        Seconds to wait for the answer.
    whole
        True to read the answer to its end, since a server whose client hangs up early may log an error; False to read
        its status only, which a server tells that doesn't close the connection.

    Raises
    ------
    OSError
        There is no answer, not in time (then a TimeoutError), or it isn't HTTP (`NoHTTP`).
    """
    parts = urlsplit(url)
    target = target or (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # HTTP/1.0: the answer ends with the connection and is never chunked
    version, length = ("1.0", []) if whole else ("1.1", ["Connection: close"])
    if method != "GET":
        length.append(f"Content-Length: {len(body)}")
    named = {"Host": parts.netloc or "localhost", **(headers or {})}
    lines = [f"{method} {target} HTTP/{version}", *(f"{k}: {v}" for k, v in named.items()), *length]
    async with asyncio.timeout(timeout), connected(url) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        received = bytearray()
        while (whole or b"\n" not in received) and (data := await reader.read(65536)):
            received += data[: max(0, _LIMIT - len(received))]
            if not whole and len(received) == _LIMIT:
                break  # a line that never ends
    head, _, content = bytes(received).partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise NoHTTP(empty=not received)
    return Response(int(words[1]), content)
