"""A minimal client of Valkey and Redis over a plain socket (RESP, https://valkey.io/topics/protocol/)."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote, urlsplit

from llmos_hub.processes.http import connected

__all__ = ["Refusal", "Reply", "ask"]


class Refusal(str):
    """An error answer of the server: ``NOAUTH Authentication required.``."""

    __slots__ = ()


Reply = str | int | None | list["Reply"]


async def ask(url: str, *commands: tuple[str, ...], log_in: bool = True, timeout: float = 5.0) -> list[Reply]:
    """Send commands over one connection; return their answers, with errors as `Refusal`.

    Parameters
    ----------
    url
        ``unix://:PASSWORD@/path`` or ``redis://[USER]:PASSWORD@host:port``.
    commands
        The words of each command.
    log_in
        Send the password first; if it is refused, that is the only answer.
    timeout
        Seconds for all answers together.

    Raises
    ------
    OSError
        There is no answer, not in time (then a TimeoutError), or it isn't RESP.
    """
    parts = urlsplit(url)
    async with asyncio.timeout(timeout), connected(url, 6379, tls=parts.scheme == "rediss") as (reader, writer):
        try:
            if log_in and parts.password:
                names = [unquote(parts.username)] if parts.username else []
                writer.write(_command("AUTH", *names, unquote(parts.password)))
                answer = await _reply(reader)
                if isinstance(answer, Refusal):
                    return [answer]
            writer.write(b"".join(_command(*words) for words in commands))
            return [await _reply(reader) for _ in commands]
        except (ValueError, asyncio.IncompleteReadError) as exc:
            raise OSError("hung up, or speaks another protocol") from exc


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


async def _reply(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, text = line[:1], line[1:].decode(errors="replace")
    if kind == b"+":
        return text
    if kind == b"-":
        return Refusal(text)
    if kind == b":":
        return int(text)
    if kind == b"$":
        return None if text == "-1" else (await reader.readexactly(int(text) + 2))[:-2].decode(errors="replace")
    if kind == b"*":
        return [await _reply(reader) for _ in range(max(0, int(text)))]
    raise ValueError(f"unknown type {kind!r}")
