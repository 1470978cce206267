"""Probes of replicas by HTTP GET."""

from __future__ import annotations

from dataclasses import dataclass

from llmos_hub.failures import reason
from llmos_hub.processes.http import NoHTTP, http_request

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
    headers = {"Host": "localhost"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        answer = await http_request(endpoint, path, headers=headers, timeout=timeout, whole=False)
    except TimeoutError:
        return ProbeResult(good=False, words=f"nothing within {timeout:g} s", silent=True)
    except (FileNotFoundError, ConnectionRefusedError):
        return ProbeResult(good=False, words="nothing, it doesn't listen yet")
    except NoHTTP as error:
        return ProbeResult(good=False, words="nothing, it hung up" if error.empty else "something else than HTTP")
    except OSError as error:
        return ProbeResult(good=False, words=f"nothing ({reason(error)})")
    return ProbeResult(good=answer.good, words=f"HTTP {answer.status}", wants_key=answer.status in (401, 403))


def probe_delay(waited: float, *, first: float, period: float) -> float:
    """Return the seconds until the next probe of a replica that wasn't ready: a twentieth of the time waited.

    >>> [probe_delay(waited, first=0.05, period=1.0) for waited in (0.0, 4.0, 100.0)]
    [0.05, 0.2, 1.0]
    """
    return min(max(first, waited / 20), max(first, period))
