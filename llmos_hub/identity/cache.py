"""What is remembered of tokens: by their SHA-256, never the tokens themselves, and bounded in number.

Good and bad answers are kept apart, so that somebody who tries random tokens pushes no good answer out.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from llmos.errors import LLMOSError
from llmos_hub.policy import Caller

__all__ = ["TokenCache", "fingerprint"]


def fingerprint(token: str) -> bytes:
    """What a token is remembered by."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    checked_at: float


@dataclass(frozen=True, slots=True)
class _Refused:
    error: type[LLMOSError]
    message: str
    checked_at: float


class TokenCache:
    """Callers and refusals by token fingerprint, least recently used ones dropped first.

    Parameters
    ----------
    ttl
        Seconds for which a good answer counts as fresh.
    negative_ttl
        Seconds for which a refusal counts.
    stale_for
        Seconds after which a good answer is not even good enough for when the Hub is away.
    size
        How many of each are remembered.
    """

    def __init__(self, *, ttl: float, negative_ttl: float, stale_for: float, size: int) -> None:
        self._ttl, self._negative_ttl, self._stale_for, self._size = ttl, negative_ttl, stale_for, size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known) + len(self._refused)

    def fresh(self, key: bytes, now: float) -> Caller | None:
        """The caller, where the answer is recent.

        Raises
        ------
        LLMOSError
            The token was refused a moment ago; the same refusal again.
        """
        known = self._known.get(key)
        if known is not None and now - known.checked_at < self._ttl:
            self._known.move_to_end(key)
            return known.caller
        refused = self._refused.get(key)
        if refused is not None and now - refused.checked_at < self._negative_ttl:
            raise refused.error(refused.message)
        return None

    def stale(self, key: bytes, now: float) -> Caller | None:
        """The caller as last heard of, for when nobody can be asked; None when that is too long ago."""
        known = self._known.get(key)
        return known.caller if known is not None and now - known.checked_at < self._stale_for else None

    def remember(self, key: bytes, caller: Caller, now: float) -> None:
        """Keep a good answer."""
        self._refused.pop(key, None)
        self._known[key] = _Known(caller, now)
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)

    def refuse(self, key: bytes, error: LLMOSError, now: float) -> None:
        """Keep a refusal; what was known of the token before is forgotten."""
        self._known.pop(key, None)
        self._refused[key] = _Refused(type(error), error.message, now)
        self._refused.move_to_end(key)
        while len(self._refused) > self._size:
            self._refused.popitem(last=False)
