"""The interface of authentication: a bearer token becomes the `Rights` of its owner."""

from __future__ import annotations

from typing import Protocol

from llmos_hub.policy import Rights

__all__ = ["Identity"]


class Identity(Protocol):
    """An identity provider, which tells whose a token is."""

    async def authenticate(self, token: str) -> Rights:
        """Return the caller whose token it is, with their rights.

        Raises
        ------
        Unauthorized
            The token is unknown or no longer valid.
        Forbidden
            The token's owner is known, but not served here.
        Unavailable
            The provider doesn't answer, and no recent answer is cached.
        TooManyRequests
            There are more unknown tokens than can be checked.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
