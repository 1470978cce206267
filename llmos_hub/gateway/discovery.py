"""Discovery of models: keeps the routing table equal to the store's ModelServices."""

from __future__ import annotations

import asyncio
import logging
import random

from llmos.errors import Expired, Unavailable
from llmos.resources import ModelService
from llmos_hub.gateway.routing import Table
from llmos_hub.stores.base import DELETED, Store

__all__ = ["Discovery"]

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LONGEST_SILENCE = 90.0
"""Seconds without an event after which a watch counts as hanging: bookmarks come every 30 seconds."""


class Discovery:
    """A watcher of ModelServices: it lists them, then watches, for as long as it runs.

    While the store is unavailable the table stays as it was; afterwards the watch continues where it
    stopped. Everything is listed again only if the store no longer has the events since then.

    Attributes
    ----------
    ready
        Set once the first list was received.
    """

    def __init__(self, store: Store, table: Table) -> None:
        self.ready = asyncio.Event()
        self._store = store
        self._table = table
        self._confirmed: float | None = None
        self._version: str | None = None
        self._pause = _FIRST_PAUSE
        self._away = False

    def age(self) -> float | None:
        """Return the seconds since the store last confirmed the table; None before the first time."""
        if self._confirmed is None:
            return None
        return asyncio.get_running_loop().time() - self._confirmed

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                await self._follow()
            except Expired:
                self._version = None
                log.info("the watch of models expired; listing them again")
            except Unavailable as error:
                self._say_away(error)
                await self._wait()
            except Exception:
                # An error in this code or the store must not stop the routing to known models.
                log.exception("following the models failed; listing them again")
                self._version = None
                await self._wait()

    async def _follow(self) -> None:
        if self._version is None:
            listing = await self._store.list(ModelService)
            self._table.replace(listing.items)
            self._confirm(listing.resource_version)
            self.ready.set()
            log.info("%d models in the table", len(listing.items))
        version = self._version
        assert version is not None
        async with self._store.watch(ModelService, resource_version=version) as events:
            iterator = aiter(events)
            while True:
                try:
                    async with asyncio.timeout(_LONGEST_SILENCE):
                        event = await anext(iterator)
                except StopAsyncIteration:
                    raise Unavailable("The store ended the watch of models.") from None
                except TimeoutError:
                    raise Unavailable(f"The watch of models was silent for {_LONGEST_SILENCE:.0f} s.") from None
                if event.resource is None:
                    pass
                elif event.type == DELETED:
                    self._table.remove(event.resource)
                else:
                    self._table.put(event.resource)
                self._confirm(event.resource_version)

    def _confirm(self, version: str) -> None:
        self._version = version
        self._confirmed = asyncio.get_running_loop().time()
        self._pause = _FIRST_PAUSE
        if self._away:
            self._away = False
            log.warning("the store answers again")

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning("the store does not answer; routing goes on with the models known: %s", error)

    async def _wait(self) -> None:
        # Half of it is random, so that many gateways don't come back at the same moment.
        await asyncio.sleep(self._pause * (0.5 + random.random() / 2))  # noqa: S311 - spreading, not a secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
