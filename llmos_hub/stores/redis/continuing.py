"""The opaque token from which a list that is read in pages continues."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from llmos.errors import BadRequest

__all__ = ["Position"]


@dataclass(frozen=True, slots=True)
class Position:
    """The resource after which the next page begins.

    Attributes
    ----------
    revision
        Revision of the list's first page.
    namespace, name
        The last resource that was read.
    """

    revision: int
    namespace: str
    name: str

    def __str__(self) -> str:
        text = json.dumps([self.revision, self.namespace, self.name], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> Position:
        """Return the position that a token stands for.

        Raises
        ------
        BadRequest
            It is not a valid token.
        """
        try:
            padded = f"{token[:4096]}{'=' * (-len(token[:4096]) % 4)}"
            revision, namespace, name = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        except (ValueError, TypeError, RecursionError):
            revision = namespace = name = None
        if not (isinstance(revision, int) and isinstance(namespace, str) and isinstance(name, str)):
            raise BadRequest("continue: this is no token that a page of a list had. List again from the beginning.")
        return cls(revision, namespace, name)
