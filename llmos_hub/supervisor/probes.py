"""Health probes of the platform's programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from llmos_hub.processes.http import http_request
from llmos_hub.valkey.resp import ask

__all__ = ["HealthProbe", "HttpProbe", "RedisProbe", "Silence", "error_words"]


class Silence(str):
    """A probe's error for a process that accepts a connection but doesn't answer."""

    __slots__ = ()


class HealthProbe(Protocol):
    """A check of a process's health."""

    async def check(self) -> str | None:
        """Return None if the process is healthy, otherwise an error in a few words; takes no longer than the timeout."""
        ...


def error_words(error: OSError) -> str:
    """Return the system's message for an error, without the address that asyncio adds."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class HttpProbe:
    """A GET that must be answered with 2xx.

    Attributes
    ----------
    url
        The URL.
    timeout
        Seconds to wait; longer than pauses by garbage collection or a busy machine.
    """

    url: str
    timeout: float = 5.0

    async def check(self) -> str | None:
        """Send the request."""
        try:
            answer = await http_request(self.url, timeout=self.timeout)
        except TimeoutError:
            return Silence(f"no answer within {self.timeout:g} s")
        except OSError as exc:
            return error_words(exc)
        return None if answer.good else f"answers with HTTP {answer.status}"


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
            answer = (await ask(self.url, ("PING",), timeout=self.timeout))[0]
        except TimeoutError:
            return Silence(f"no answer within {self.timeout:g} s")
        except OSError as exc:
            return error_words(exc)
        return None if answer == "PONG" else str(answer)
