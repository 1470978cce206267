"""Probes of replicas by HTTP GET. Each has its own connection; a client library isn't needed for one status line."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from llmos_hub.failures import reason

__all__ = ["ProbeResult", "http_get", "probe_delay"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe, with half a sentence on it for people.

    Attributes
    ----------
    silent
        True if no answer came in time.
    wants_key
        True if it refused because a key was missing or wrong.
    """

    good: bool
    words: str
    silent: bool = False
    wants_key: bool = False


async def _exchange(endpoint: str, path: str, key: str) -> ProbeResult:
    address = urlsplit(endpoint)
    if address.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(unquote(address.path))
    else:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n".encode())
        line = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    words = line.split(None, 2)
    if len(words) < 2 or not line.startswith(b"HTTP/") or not words[1].isdigit():
        return ProbeResult(good=False, words="something else than HTTP" if line else "nothing, it hung up")
    return ProbeResult(
        good=words[1].startswith(b"2"), words=f"HTTP {words[1].decode()}", wants_key=words[1] in (b"401", b"403")
    )


async def http_get(endpoint: str, path: str, timeout: float, key: str = "") -> ProbeResult:
    """Probe once; any 2xx status is good. Failures are results too, never exceptions.

    Parameters
    ----------
    endpoint
        ``unix:///path`` or ``http://127.0.0.1:port``.
    path
        The path, such as ``/health``.
    timeout
        Timeout in seconds, from connecting to the status line.
    key
        Sent as a bearer token, unless empty.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(endpoint, path, key)
    except TimeoutError:
        return ProbeResult(good=False, words=f"nothing within {timeout:g} s", silent=True)
    except (FileNotFoundError, ConnectionRefusedError):
        return ProbeResult(good=False, words="nothing, it doesn't listen yet")
    except ValueError:  # a line that never ends
        return ProbeResult(good=False, words="something else than HTTP")
    except OSError as error:
        return ProbeResult(good=False, words=f"nothing ({reason(error)})")


def probe_delay(waited: float, *, first: float, period: float) -> float:
    """Return the seconds until the next probe of a replica that wasn't ready: a twentieth of the time waited.

    >>> [probe_delay(waited, first=0.05, period=1.0) for waited in (0.0, 4.0, 100.0)]
    [0.05, 0.2, 1.0]
    """
    return min(max(first, waited / 20), max(first, period))
