"""A cache of token checks, by the tokens' SHA-256 and limited in number; the tokens themselves are never kept.

Successful checks and refusals are kept apart, so that somebody who tries random tokens evicts no successful check.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from llmos.errors import LLMOSError
from llmos_hub.policy import Caller, Rights

__all__ = ["TokenCache", "fingerprint"]


def fingerprint(token: str) -> bytes:
    """Return the key under which a token is cached."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Known:
    rights: Rights
    checked_at: float


@dataclass(frozen=True, slots=True)
class _Refused:
    error: type[LLMOSError]
    message: str
    checked_at: float


class TokenCache:
    """A cache of callers, with their rights, and refusals by token fingerprint; the least recently used ones are dropped first.

    Parameters
    ----------
    ttl
        Seconds for which a cached identity counts as fresh.
    negative_ttl
        Seconds for which a refusal is cached.
    stale_for
        Maximum age in seconds of a cached identity while the Hub is unreachable.
    size
        Maximum number of entries of each kind.
    """

    def __init__(self, *, ttl: float, negative_ttl: float, stale_for: float, size: int) -> None:
        self._ttl, self._negative_ttl, self._stale_for, self._size = ttl, negative_ttl, stale_for, size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known) + len(self._refused)

    def fresh(self, key: bytes, now: float) -> Rights | None:
        """Return the caller's rights if the cached identity is fresh, otherwise None.

        Raises
        ------
        LLMOSError
            The token was refused recently; the same refusal is raised again.
        """
        known = self._known.get(key)
        if known is not None and now - known.checked_at < self._ttl:
            self._known.move_to_end(key)
            return known.rights
        refused = self._refused.get(key)
        if refused is not None and now - refused.checked_at < self._negative_ttl:
            raise refused.error(refused.message)
        return None

    def stale(self, key: bytes, now: float) -> Rights | None:
        """Return the rights of the last known caller, for use while the Hub is unreachable; None if unknown or too old."""
        known = self._known.get(key)
        return known.rights if known is not None and now - known.checked_at < self._stale_for else None

    def remember(self, key: bytes, caller: Caller, now: float) -> Rights:
        """Cache an identity, and return the rights that are cached with it."""
        self._refused.pop(key, None)
        rights = Rights(caller)
        self._known[key] = _Known(rights, now)
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return rights

    def refuse(self, key: bytes, error: LLMOSError, now: float) -> None:
        """Cache a refusal, and drop the identity that was cached for the token."""
        self._known.pop(key, None)
        self._refused[key] = _Refused(type(error), error.message, now)
        self._refused.move_to_end(key)
        while len(self._refused) > self._size:
            self._refused.popitem(last=False)
