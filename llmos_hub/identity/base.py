"""Who asks: a bearer token becomes a `Caller`."""

from __future__ import annotations

from typing import Protocol

from llmos_hub.policy import Caller

__all__ = ["Identity"]


class Identity(Protocol):
    """Knows whose a token is."""

    async def authenticate(self, token: str) -> Caller:
        """Whose token it is.

        Raises
        ------
        Unauthorized
            Nobody's (any more).
        Forbidden
            Known, but nobody that is served here.
        Unavailable
            The one who knows doesn't answer, and nothing recent is remembered.
        TooManyRequests
            More unknown tokens than can be checked.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
