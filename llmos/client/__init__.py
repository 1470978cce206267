"""The SDK. Written once, asynchronously, in `_async`; `_sync` is generated from it by ``tools/unasync.py``."""

from __future__ import annotations

from llmos.client._async.client import AsyncClient
from llmos.client._async.collection import AsyncCollection
from llmos.client._sync.client import Client
from llmos.client._sync.collection import Collection
from llmos.client.messages import AvailableModel, ChatChunk, Event, Listing, WatchEvent, WhoAmI
from llmos.client.progress import Progress

__all__ = [
    "AsyncClient",
    "AsyncCollection",
    "AvailableModel",
    "ChatChunk",
    "Client",
    "Collection",
    "Event",
    "Listing",
    "Progress",
    "WatchEvent",
    "WhoAmI",
]
