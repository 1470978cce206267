"""The spelling of commands in hints."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Hints"]


@dataclass(frozen=True)
class Hints:
    """Spelling of commands in hints, which differs between terminal and notebook.

    Attributes
    ----------
    chat
        Command to chat, with ``{name}`` in it: ``llmos chat {name}`` or ``%%chat {name}``.
    command
        ``llmos`` or ``%llmos``.
    """

    chat: str = "llmos chat {name}"
    command: str = "llmos"
