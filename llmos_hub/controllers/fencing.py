"""Fencing: refusal of the writes of a process that no longer leads.

Leadership ends by the clock, work ends slightly later: a process that was suspended continues at the line it
was at. Leadership is therefore checked immediately before each write is sent. A write that was sent before
arrives within a request's timeout, which the lease's duration allows for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from llmos.errors import Conflict
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Leadership
from llmos_hub.stores.base import Store

__all__ = ["fenced", "require_leadership"]

_WRITES: Final = frozenset({"create", "update", "apply", "patch_status", "delete", "record"})
"""The methods of a store and of a backend that write."""

T = TypeVar("T", Store, Backend)


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

    def __init__(self, inner: Store | Backend, leadership: Leadership) -> None:
        self._inner = inner
        self._leadership = leadership

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._guarded(found) if name in _WRITES else found

    def _guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            require_leadership(leading=self._leadership.leading)
            return await write(*args, **kwargs)

        return guarded


def fenced(inner: T, leadership: Leadership) -> T:
    """Return the store or backend with writes that raise `Conflict` while another process leads."""
    return cast("T", _Fenced(inner, leadership))
