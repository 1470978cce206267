"""Wrong passwords, counted, and how long the next try has to wait.

Counted per name *and* place (an address, or a browser that its owner has logged in with before): whoever guesses
from elsewhere delays themselves, not the person whose name it is. Over all places a name has a second, looser count,
for guesses from many addresses; browsers that are known are not held up by it.
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
"""Seconds after which failures no longer count: a typing error a week is no attack."""


@dataclass(frozen=True)
class Place:
    """Where a log-in comes from.

    Attributes
    ----------
    key
        The address, or what marks the browser.
    known
        Whether the person has logged in from this browser before.
    """

    key: str
    known: bool = False


def place_of(request: Any, trusted: tuple[str, ...] = ()) -> Place:
    """The address that a request comes from, as the nearest proxy that we trust saw it.

    The Hub's own proxy appends what it saw to ``X-Forwarded-For``, so the list is read from its end. Whoever is on this
    machine can write what stands before their own loopback address, so that is believed only of a proxy that is named.
    ``X-Real-Ip``, which JupyterHub's own address heeds, is passed on as whoever asks has written it, and is not read.

    Parameters
    ----------
    request
        Tornado's.
    trusted
        Addresses of proxies before the Hub's own (``JupyterHub.trusted_downstream_ips``); one on this machine as well.
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
    """An address as one thing however it is written; an IPv4 one also where a socket for both shows it as IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Delays:
    """Failures by key, and the time that each further one costs.

    Parameters
    ----------
    free
        Failures that cost nothing.
    first
        Seconds after the first one too many; doubles with each further one.
    longest
        The most, in seconds.
    """

    _KEPT = 10_000  # keys; the oldest are forgotten, so that names made up at random don't fill the memory

    def __init__(self, free: int, first: float, longest: float) -> None:
        self._free, self._first, self._longest = free, first, longest
        self._failed: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def remaining(self, key: Hashable) -> float:
        """Seconds until it may be tried again."""
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
        """Forget the failures."""
        self._failed.pop(key, None)


class Attempts:
    """Who has to wait before the next try.

    Parameters
    ----------
    here
        Per name and place.
    anywhere
        Per name, over all places that aren't known.
    """

    def __init__(self, here: Delays, anywhere: Delays) -> None:
        self._here, self._anywhere = here, anywhere

    def __len__(self) -> int:
        return len(self._here) + len(self._anywhere)

    def remaining(self, name: str, place: Place) -> float:
        """Seconds until the name may be tried again from there."""
        here = self._here.remaining((name, place.key))
        return here if place.known else max(here, self._anywhere.remaining(name))

    def failed(self, name: str, place: Place) -> None:
        """Count a failure."""
        self._here.failed((name, place.key))
        if not place.known:
            self._anywhere.failed(name)

    def succeeded(self, name: str, place: Place) -> None:
        """Forget the failures from there, and those from anywhere."""
        self._here.succeeded((name, place.key))
        self._anywhere.succeeded(name)
