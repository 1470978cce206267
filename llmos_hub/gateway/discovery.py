"""Discovery of models: keeps the routing table equal to the store's ModelServices."""

from __future__ import annotations

from llmos.resources import ModelService
from llmos_hub.gateway.routing import RoutingTable
from llmos_hub.stores.base import DELETED, Store, WatchEvent
from llmos_hub.stores.follower import Follower

__all__ = ["make_discovery"]


def make_discovery(store: Store, table: RoutingTable) -> Follower[ModelService]:
    """Make the follower of ModelServices; while the store is unavailable the table stays as it was."""

    def changed(event: WatchEvent[ModelService]) -> None:
        if event.resource is None:
            return
        if event.type == DELETED:
            table.remove(event.resource)
        else:
            table.put(event.resource)

    return Follower(
        store, ModelService, listed=lambda listing: table.replace(listing.items), changed=changed, longest_pause=2.0
    )
