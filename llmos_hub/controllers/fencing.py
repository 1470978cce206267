"""Fencing: refusal of the writes of a process that no longer leads.

Leadership ends by the clock, work ends slightly later: a process that was suspended continues at the line it
was at. Leadership is therefore checked immediately before each write is sent. A write that was sent before
arrives within a request's timeout, which the lease's duration allows for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from llmos.errors import Conflict
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Leadership
from llmos_hub.stores.base import Store

__all__ = ["fenced_backend", "fenced_store", "require_leadership"]

_STORE_WRITES: Final = frozenset({"create", "update", "apply", "patch_status", "delete", "record"})
_BACKEND_WRITES: Final = frozenset({"apply", "delete"})


def require_leadership(*, leading: bool) -> None:
    """Refuse a write of a process that doesn't lead.

    Raises
    ------
    Conflict
        Another process leads now.
    """
    if not leading:
        raise Conflict("Another process leads now and does this.")


class _Fenced:
    """A proxy that passes on all calls, but writes only while leading."""

    def __init__(self, inner: Any, writes: frozenset[str], leadership: Leadership) -> None:
        self._inner = inner
        self._writes = writes
        self._leadership = leadership

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._guarded(found) if name in self._writes else found

    def _guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            require_leadership(leading=self._leadership.leading)
            return await write(*args, **kwargs)

        return guarded


def fenced_store(store: Store, leadership: Leadership) -> Store:
    """Return the store with writes that raise `Conflict` while another process leads."""
    return cast("Store", _Fenced(store, _STORE_WRITES, leadership))


def fenced_backend(backend: Backend, leadership: Leadership) -> Backend:
    """Return the backend with writes that raise `Conflict` while another process leads."""
    return cast("Backend", _Fenced(backend, _BACKEND_WRITES, leadership))
