"""Taps: observers and filters of an answer's body on its way from the engine to the client, piece by piece.

The stage `llmos_hub.gateway.stages.rewrite` adds those that a request needs; most requests need none.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

__all__ = ["Tap"]


class Tap(Protocol):
    """An observer or filter of the body of one answer.

    It is not fed an answer with a Content-Encoding (no engine is asked for one), nor the beginning of a server error,
    which is read before to find out whether it is the client's.

    Attributes
    ----------
    changes
        True if it may change the body: then no length is declared to the client.
    """

    changes: ClassVar[bool]

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Take the next piece, which is not parsed and may begin and end anywhere, and return what is passed on.

        An observer returns `data` itself. If the answer breaks off, no piece is marked as the `last` one.
        """
        ...
