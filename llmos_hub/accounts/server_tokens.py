"""Which of a person's tokens their running servers have."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from llmos_hub.names import INVOKE_NOTE

__all__ = ["ServerTokens"]

_AT_START: Final = timedelta(minutes=5)
"""The Hub makes a server's tokens when it starts it. A token with the same note from another time is not the server's:
anybody may give a token any note."""


class ServerTokens:
    """Tells a running server's tokens from those that its owner has made.

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
            started = spawner.orm_spawner.started
            base_url = person.base_url.rstrip("/") + "/" + (f"{name}/" if name else "")
            for note in (f"Server at {base_url}", INVOKE_NOTE.format(user=person.name, server=name)):
                self._notes[note] = started

    def __call__(self, token: Any) -> bool:
        """Whether it is a running server's."""
        started = self._notes.get(token.note or "")
        if started is None or token.created is None:
            return False
        return bool(abs(token.created.replace(tzinfo=None) - started) < _AT_START)
