"""Refuses the writes of a process that no longer leads.

Leadership is lost by the clock, work ends a moment later: a process that was frozen or starved goes on with the line it
was at. Every write is therefore asked for at the last moment before it leaves the process. What is on its way by then
has a request's timeout to arrive, for which the lease leaves room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from llmos.errors import Conflict
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Leadership
from llmos_hub.stores.base import Store

__all__ = ["fenced_backend", "fenced_store"]

_STORE_WRITES: Final = frozenset({"create", "update", "apply", "patch_status", "delete", "record"})
_BACKEND_WRITES: Final = frozenset({"apply", "delete"})


class _Fenced:
    """Hands everything on, writes only while leading."""

    def __init__(self, inner: Any, writes: frozenset[str], leadership: Leadership) -> None:
        self._inner = inner
        self._writes = writes
        self._leadership = leadership

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._guarded(found) if name in self._writes else found

    def _guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self._leadership.leading:
                raise Conflict("Another process leads now and does this.")
            return await write(*args, **kwargs)

        return guarded


def fenced_store(store: Store, leadership: Leadership) -> Store:
    """The store, with writes that raise `Conflict` while another process leads."""
    return cast("Store", _Fenced(store, _STORE_WRITES, leadership))


def fenced_backend(backend: Backend, leadership: Leadership) -> Backend:
    """The backend, with writes that raise `Conflict` while another process leads."""
    return cast("Backend", _Fenced(backend, _BACKEND_WRITES, leadership))
