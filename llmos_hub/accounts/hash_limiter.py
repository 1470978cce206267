"""A limit on how many password hashes are computed at a time, and on how many log-ins wait for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from typing import Any, Final

from tornado import web
from tornado.log import app_log

from llmos_hub.accounts.attempts import Place

__all__ = ["HashLimiter"]

_OF_ONE_PERSON: Final = 2
"""Slots that a known person may hold or wait for: one more than somebody in front of one browser needs."""


class HashLimiter:
    """A limit on concurrent password hashes, each of which takes 32 MiB: two for unknown places, one for known ones.

    Parameters
    ----------
    most_waiting
        Maximum number of log-ins from unknown places that wait. One address may have half of the places at most: a
        class or a cluster's Ingress may share one address, and a single address must not lock everybody else out.
    """

    def __init__(self, most_waiting: int) -> None:
        self._new, self._known = asyncio.Semaphore(2), asyncio.Semaphore(1)
        self._most = most_waiting + 2
        self._held: Counter[Hashable] = Counter()

    @contextlib.asynccontextmanager
    async def slot(self, name: str, place: Place) -> AsyncIterator[None]:
        """Wait for a slot and hold it.

        Raises
        ------
        HTTPError
            429: too many wait already: of this user if the place is known, otherwise from this address or in total.
        """
        limits: dict[Hashable, int] = (
            {("person", name): _OF_ONE_PERSON}
            if place.known
            else {("address", place.key): max(1, self._most // 2), "new": self._most}
        )
        for key, most in limits.items():
            if self._held[key] >= most:
                app_log.warning("A log-in as %r was refused: %d wait already", name[:64], self._held[key])
                raise _too_many()
        self._held.update(limits.keys())
        try:
            async with self._known if place.known else self._new:
                yield
        finally:
            self._held -= Counter(limits.keys())  # subtracting a Counter also drops keys whose count is 0


def _too_many() -> web.HTTPError:
    error: Any = web.HTTPError(429, "Many log-ins are under way at this moment. Try again in a few seconds.")
    error.headers = {"Retry-After": "5"}
    return error  # type: ignore[no-any-return]
