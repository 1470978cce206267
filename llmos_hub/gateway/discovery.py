"""Discovery of models: keeps the routing table equal to the store's ModelServices."""

from __future__ import annotations

from llmos.resources import ModelService
from llmos_hub.gateway.routing import RoutingTable
from llmos_hub.stores.base import DELETED, Listing, Store, WatchEvent
from llmos_hub.stores.follower import Follower

__all__ = ["Discovery"]


class Discovery:
    """A follower of ModelServices; while the store is unavailable the table stays as it was.

    Attributes
    ----------
    ready
        Set once the first list was received.
    """

    def __init__(self, store: Store, table: RoutingTable) -> None:
        self._table = table
        self._follower = Follower(store, ModelService, listed=self._replace, changed=self._take, longest_pause=2.0)
        self.ready = self._follower.synced
        self.age = self._follower.age
        self.run = self._follower.run

    def _replace(self, listing: Listing[ModelService]) -> None:
        self._table.replace(listing.items)

    def _take(self, event: WatchEvent[ModelService]) -> None:
        if event.resource is None:
            return
        if event.type == DELETED:
            self._table.remove(event.resource)
        else:
            self._table.put(event.resource)
