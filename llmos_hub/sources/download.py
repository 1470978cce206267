"""Download of one file: it is resumed after an interruption, its hash is checked and its progress reported.

Bytes are hashed as they arrive. Bytes of earlier attempts are read once and hashed too, so that a file from several
attempts is checked as a whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from llmos.errors import SourceFailed
from llmos.proxies import proxy_advice
from llmos_hub.failures import reason
from llmos_hub.sources.base import FetchProgress, Reporter
from llmos_hub.sources.cache import explain_os_error

__all__ = ["Meter", "Remote", "RequestRefused", "download", "download_beginning", "new_client"]

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
_ATTEMPTS: Final = 4
"""Consecutive attempts without a byte after which the download fails."""
_PAUSE: Final = 0.5
"""Pause in seconds before the second attempt; doubled before each further one."""
_CHUNK: Final = 2**20
_REPORT_EVERY: Final = 0.25
_RATE_OVER: Final = 5.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on an HTTP server.

    Attributes
    ----------
    url
        The URL; the server may redirect. `headers` are sent too, but credentials in them to the URL's host only.
    name
        Name for people.
    size
        Size in bytes, if known.
    sha256
        Expected hash; None: any.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestRefused(Exception):
    """The server refused the request; the caller knows what that means for this server.

    Attributes
    ----------
    status
        The HTTP status.
    headers
        The headers of the answer.
    """

    def __init__(self, status: int, headers: httpx.Headers) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers


class Meter:
    """A meter that turns counts of bytes into a few progress reports per second, with the rate over the last seconds."""

    def __init__(self, report: Reporter, name: str, total: int | None, *, before: int = 0) -> None:
        self._report = report
        self._name = name
        self._total = total
        self._before = before  # bytes of other files that count as well
        self._reported = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, done: int, *, last: bool = False) -> None:
        """Report that `done` bytes of this file have been fetched."""
        now = time.monotonic()
        if not last and now - self._reported < _REPORT_EVERY:
            return
        self._reported = now
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, done))
        while self._samples[0][0] < now - _RATE_OVER and len(self._samples) > 2:
            self._samples.popleft()
        since, begin = self._samples[0]
        rate = (done - begin) / (now - since) if now > since else None
        self._report(FetchProgress(self._name, self._before + done, self._total, rate))

    def say(self, message: str) -> None:
        """Report a message."""
        self._report(FetchProgress(self._name, 0, message=message))


def new_client() -> httpx.Client:
    """Return an HTTP client with timeouts; it uses the usual proxy variables."""
    timeout = httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
    return httpx.Client(timeout=timeout, follow_redirects=True)


def _unreachable(url: str, error: Exception, what: str) -> SourceFailed:
    """Return the error for a server that can't be reached."""
    host = httpx.URL(url).host
    return SourceFailed(
        f"{what} can't be fetched: no connection to {host} ({_why(error)}). Is this machine online? "
        f"{proxy_advice(os.environ)}. Without a network, use demo://tiny or file:///path/model.gguf."
    )


def download(remote: Remote, partial: Path, meter: Meter, client: httpx.Client) -> str:
    """Fetch a file, or the rest of it, and return its SHA-256.

    Parameters
    ----------
    remote
        The file to fetch.
    partial
        The path to write to; existing content is used as the beginning of the file.
    meter
        Gets the progress.
    client
        The HTTP client.

    Raises
    ------
    RequestRefused
        The server answered 4xx.
    SourceFailed
        The server can't be reached or breaks off too often, or the file has the wrong size or hash.
    """
    digest, done = _begin(remote, partial, meter)
    failures = 0
    while remote.size is None or done < remote.size or done == 0:
        before = done
        try:
            with partial.open("ab") as file:
                for chunk, restarted in _chunks(remote, done, client):
                    if restarted:
                        file.truncate(0)
                        digest, done = hashlib.sha256(), 0
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    meter.at(done)
                    if remote.size is not None and done > remote.size:
                        break  # too long: the rest isn't stored, and the check below refuses the file
            if remote.size is None or done >= remote.size:
                break
            problem: Exception = _TryAgain(f"the transfer ended at {done:,} of {remote.size:,} bytes")
        except (httpx.TransportError, _TryAgain) as error:
            problem = error
        except OSError as error:
            raise explain_os_error(error, partial.parent) from error
        failures = 1 if done > before else failures + 1
        if failures >= _ATTEMPTS or (done == 0 and failures >= 2 and isinstance(problem, httpx.ConnectError)):
            raise _unreachable(remote.url, problem, remote.name) from problem
        meter.say(f"{remote.name}: the transfer broke off ({_why(problem)}); going on from {done:,} bytes.")
        time.sleep(_PAUSE * 2 ** (failures - 1))
    meter.at(done, last=True)
    _check(remote, done, digest.hexdigest(), partial)
    return digest.hexdigest()


def download_beginning(remote: Remote, count: int, client: httpx.Client) -> bytes:
    """Fetch the first bytes of a file, `count` at most.

    Raises
    ------
    RequestRefused
        The server didn't answer 2xx.
    httpx.TransportError
        The server can't be reached or broke off.
    """
    headers = {**remote.headers, "Accept-Encoding": "identity", "Range": f"bytes=0-{count - 1}"}
    beginning = b""
    with client.stream("GET", remote.url, headers=headers) as response:
        if not response.is_success:
            raise RequestRefused(response.status_code, response.headers)
        for chunk in response.iter_raw():
            beginning += chunk
            if len(beginning) >= count:
                break  # a server that ignores the range sends all of the file
    return beginning[:count]


class _TryAgain(Exception):
    """A temporary failure: status 429 or 5xx, or a short body; its text was written here and may be shown."""


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, _TryAgain) else reason(error)


def _begin(remote: Remote, partial: Path, meter: Meter) -> tuple[hashlib._Hash, int]:
    """Return the hash and the number of the bytes from earlier attempts."""
    digest, done = hashlib.sha256(), 0
    if partial.exists():
        size = partial.stat().st_size
        if remote.size is not None and size > remote.size:
            partial.unlink()
            return digest, done
        if size > 2**30:
            meter.say(f"{size / 1e9:.1f} GB are here from before; checking them.")
        with partial.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
    return digest, done


def _chunks(remote: Remote, done: int, client: httpx.Client) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes from `done` on; the first piece comes with True if the server started from the beginning."""
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:
            yield b"", True
            raise _TryAgain("what is here is not its beginning")
        if response.status_code == 429 or response.status_code >= 500:
            raise _TryAgain(f"HTTP {response.status_code}")
        if response.status_code >= 400:
            raise RequestRefused(response.status_code, response.headers)
        restarted = bool(done) and response.status_code != 206
        for chunk in response.iter_raw():  # as they arrive: chunks in a buffer would be lost when the connection breaks
            yield chunk, restarted
            restarted = False


def _check(remote: Remote, done: int, sha256: str, partial: Path) -> None:
    wrong = remote.size is not None and done != remote.size
    if not wrong and (remote.sha256 is None or sha256 == remote.sha256):
        return
    partial.unlink(missing_ok=True)
    expected = f"{remote.size:,} bytes" if wrong else f"SHA-256 {(remote.sha256 or '')[:12]}…"
    got = f"{done:,} bytes" if wrong else f"{sha256[:12]}…"
    raise SourceFailed(
        f"{remote.name} is not what it should be: {expected} were expected, {got} came. It was deleted. "
        "Try again; if that happens again, something between here and "
        f"{httpx.URL(remote.url).host} changes files, or the repository changed."
    )
