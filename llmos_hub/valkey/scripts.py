"""Scripts that run inside Valkey, each as one atomic step."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1

__all__ = ["Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, with the digest that identifies it to the server.

    Attributes
    ----------
    text
        The script in Lua 5.1.
    """

    text: str

    @property
    def digest(self) -> str:
        """SHA-1 of the text, for ``EVALSHA``."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()
