"""The tokens of running servers, among all tokens of a user."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from llmos.names import token_notes

__all__ = ["ServerTokens"]

_AT_START: Final = timedelta(minutes=5)
"""The Hub makes a server's tokens when it starts the server. A token with the same note but made at another time is not
the server's: a user may give a token any note."""


class ServerTokens:
    """A predicate that distinguishes tokens of a user's running servers from those that the user has made.

    Parameters
    ----------
    person
        The Hub's user object.
    """

    def __init__(self, person: Any) -> None:
        self._notes: dict[str, Any] = {}
        for name, spawner in person.spawners.items():
            if not spawner.active:
                continue
            for note in token_notes(person.name, name, person.base_url):
                self._notes[note] = spawner.orm_spawner.started

    def __call__(self, token: Any) -> bool:
        """Return whether the token is that of a running server."""
        started = self._notes.get(token.note or "")
        if started is None or token.created is None:
            return False
        return bool(abs(token.created.replace(tzinfo=None) - started) < _AT_START)
