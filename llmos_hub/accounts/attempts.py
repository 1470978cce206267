"""Counts of failed log-ins, and the delays that follow from them.

Failures are counted per name *and* place (an address, or a browser that the user has logged in with before), so that
somebody who guesses from elsewhere delays only themselves, not the user whose name it is. A second, looser count per
name covers guesses from many addresses; known browsers are not subject to it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

__all__ = ["Attempts", "Delays", "Place", "place_of"]

_FORGOTTEN: Final = 86_400.0
"""Seconds after which failures no longer count: a typing error a week is not an attack."""


@dataclass(frozen=True)
class Place:
    """The origin of a log-in.

    Attributes
    ----------
    key
        The address, or the browser's mark.
    known
        True if the user has logged in from this browser before.
    """

    key: str
    known: bool = False


def place_of(request: Any, trusted: tuple[str, ...] = ()) -> Place:
    """Return the address that a request comes from, as seen by the nearest trusted proxy.

    The Hub's own proxy appends the address of its peer to ``X-Forwarded-For``, so the list is read from its end. A local
    process can send any entries before its own loopback address, so entries before a loopback address are used only if
    that address is a trusted proxy's. ``X-Real-Ip``, which JupyterHub itself evaluates, is ignored: the proxy passes it
    on as the client sent it.

    Parameters
    ----------
    request
        Tornado's request.
    trusted
        Addresses of proxies in front of the Hub's own (``JupyterHub.trusted_downstream_ips``), including one on this
        machine.
    """
    proxies = {_parse(address) for address in trusted}
    for part in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        address = _parse(part.strip())
        if address is None or (address.is_loopback and address not in proxies):
            break
        if address not in proxies:
            return Place(str(address))
    return Place("this machine")


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return a normalized address, an IPv4-mapped IPv6 address as IPv4; None if the text is not an address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Delays:
    """Failures by key, and the growing delay after too many of them.

    Parameters
    ----------
    free
        Number of failures without a delay.
    first
        Delay in seconds after the first failure beyond that; it doubles with each further one.
    longest
        Maximum delay in seconds.
    """

    _KEPT = 10_000  # keys; the oldest are forgotten, so that names made up at random don't fill the memory

    def __init__(self, free: int, first: float, longest: float) -> None:
        self._free, self._first, self._longest = free, first, longest
        self._failed: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def remaining(self, key: Hashable) -> float:
        """Return the seconds until the key may be tried again."""
        _, until = self._failed.get(key, (0, 0.0))
        return max(0.0, until - time.monotonic())

    def failed(self, key: Hashable) -> None:
        """Count a failure."""
        now = time.monotonic()
        count, until = self._failed.pop(key, (0, now))
        count = count + 1 if now - until < _FORGOTTEN else 1
        over = count - self._free
        wait = min(self._longest, self._first * 2 ** min(over, 30)) if over >= 0 else 0.0
        self._failed[key] = (count, now + wait)
        if len(self._failed) > self._KEPT:
            self._failed.popitem(last=False)

    def succeeded(self, key: Hashable) -> None:
        """Reset the failures of a key."""
        self._failed.pop(key, None)


class Attempts:
    """The delays per name and place, and per name over all unknown places.

    Parameters
    ----------
    here
        Delays per name and place.
    anywhere
        Delays per name, over all unknown places.
    """

    def __init__(self, here: Delays, anywhere: Delays) -> None:
        self._here, self._anywhere = here, anywhere

    def remaining(self, name: str, place: Place) -> float:
        """Return the seconds until the name may be tried again from this place."""
        here = self._here.remaining((name, place.key))
        return here if place.known else max(here, self._anywhere.remaining(name))

    def failed(self, name: str, place: Place) -> None:
        """Count a failure."""
        self._here.failed((name, place.key))
        if not place.known:
            self._anywhere.failed(name)

    def succeeded(self, name: str, place: Place) -> None:
        """Reset the failures of the name, from this place and from all unknown places."""
        self._here.succeeded((name, place.key))
        self._anywhere.succeeded(name)
