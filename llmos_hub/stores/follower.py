"""Following all resources of a kind: list once, watch the changes from there, list again when the store lost some.

It follows Kubernetes' reflectors (https://pkg.go.dev/k8s.io/client-go/tools/cache). `Informer` keeps a copy with it,
the gateway its routing table.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from llmos.errors import Expired, LLMOSError, Unavailable
from llmos.resources import Resource
from llmos_hub.stores.base import Listing, Store, WatchEvent

__all__ = ["Follower"]

R = TypeVar("R", bound=Resource)

_SILENCE: Final = 90.0
"""Seconds without an event after which a watch counts as hanging: bookmarks come every 30 seconds."""
_FIRST_PAUSE: Final = 0.1
"""Seconds before the second attempt: a local database is back within one or two seconds."""

logger = logging.getLogger(__name__)


class Follower(Generic[R]):
    """The loop that lists and watches the resources of one kind.

    Parameters
    ----------
    store
        The store of the resources.
    kind
        The kind.
    listed
        Called with each list, which replaces all that was known.
    changed
        Called with each event of the watch, bookmarks included.
    longest_pause
        Maximum seconds between two attempts while the store doesn't answer; a change goes unnoticed for that long.
    """

    def __init__(
        self,
        store: Store,
        kind: type[R],
        *,
        listed: Callable[[Listing[R]], None],
        changed: Callable[[WatchEvent[R]], None],
        longest_pause: float = 5.0,
    ) -> None:
        self.synced = asyncio.Event()
        """Set once all resources were listed."""
        self.connected = False
        """True while the watch is open."""
        self._store = store
        self._kind = kind
        self._listed = listed
        self._changed = changed
        self._longest_pause = longest_pause
        self._version: str | None = None
        self._confirmed: float | None = None
        self._failures = 0

    def age(self) -> float | None:
        """Return the seconds since the store last confirmed what is known; None before the first time."""
        if self._confirmed is None:
            return None
        return asyncio.get_running_loop().time() - self._confirmed

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._follow()
                await self._again()
            except Expired as error:
                logger.info("%s: %s Listing again.", self._kind.plural, error.message)
                self._version = None
                await self._again()
            except LLMOSError as error:
                await self._retry(error)
            except Exception as error:
                # a mistake in this code or the store must not end the process's knowledge of all resources
                logger.exception("Following %s failed; listing again", self._kind.plural)
                self._version = None
                await self._retry(error)
            finally:
                self.connected = False

    async def _follow(self) -> None:
        version = self._version
        if version is None:
            listing = await self._store.list(self._kind)
            self._listed(listing)
            version = self._confirm(listing.resource_version)
            self.synced.set()
        async with self._store.watch(self._kind, resource_version=version) as events:
            self.connected = True
            iterator = aiter(events)
            while True:
                try:
                    async with asyncio.timeout(_SILENCE):
                        event = await anext(iterator)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise Unavailable(f"The watch was silent for {_SILENCE:.0f} s.") from None
                self._changed(event)
                self._confirm(event.resource_version)
                if self._failures:
                    self._failures = 0
                    logger.info("%s are followed again", self._kind.plural)

    def _confirm(self, version: str) -> str:
        self._version = version
        self._confirmed = asyncio.get_running_loop().time()
        return version

    async def _again(self) -> None:
        """Continue at once, since nothing is wrong, but not in a tight loop."""
        if self._failures:
            await self._pause()
        self._failures += 1

    async def _retry(self, error: Exception) -> None:
        if not self._failures:
            logger.warning("%s can't be followed, those known stay: %s", self._kind.plural, error)
        self._failures += 1
        await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(_delay(self._failures, self._longest_pause))


def _delay(failures: int, longest: float) -> float:
    """Return the seconds to wait after that many consecutive failures (1 or more)."""
    pause = min(longest, _FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
    # half of it is random, so that many processes don't come back at the same moment
    return pause * random.uniform(0.5, 1)  # noqa: S311 - spreading, not a secret
