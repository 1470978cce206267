"""The Python SDK.

The client is written by hand in `_async`; `_sync` is made from it (``make generate``). Names are imported at
first use because the HTTP library takes a quarter of a second to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.client._async.client import AsyncClient
    from llmos.client._async.collection import AsyncCollection
    from llmos.client._sync.client import Client
    from llmos.client._sync.collection import Collection
    from llmos.client.messages import AvailableModel, ChatChunk, Event, Listing, Step, WatchEvent, WhoAmI
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
    "Step",
    "WatchEvent",
    "WhoAmI",
]

_HOMES = {
    "AsyncClient": "_async.client",
    "AsyncCollection": "_async.collection",
    "Client": "_sync.client",
    "Collection": "_sync.collection",
    "Progress": "progress",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'llmos.client' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"llmos.client.{_HOMES.get(name, 'messages')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
