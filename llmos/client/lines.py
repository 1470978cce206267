"""Splitting of byte streams into lines, as JSON Lines and server-sent events define them. Does no I/O."""

from __future__ import annotations

from llmos.errors import UpstreamFailed

__all__ = ["MAX_LINE", "LineSplitter"]

MAX_LINE = 16 * 1024 * 1024
"""Maximum length of a line in bytes: a stream without line ends must not fill the memory."""


class LineSplitter:
    r"""A splitter that cuts a stream of bytes at LF, with or without a CR before it, and nowhere else.

    Text splitters of Python and httpx also cut at U+0085, U+2028 and U+2029, which are ordinary characters
    inside a JSON string (RFC 8259, section 7) and inside an event's data
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).

    >>> splitter = LineSplitter()
    >>> splitter.feed(b'{"a": 1}\r\n{"b"'), splitter.feed(b': 2}\n'), splitter.rest()
    (['{"a": 1}'], ['{"b": 2}'], [])
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes, without their line ends; empty lines are left out.

        Raises
        ------
        UpstreamFailed
            A line is longer than `MAX_LINE`.
        """
        *complete, rest = data.split(b"\n")
        lines = []
        for piece in complete:
            self._keep(piece)
            lines += self.rest()
        self._keep(rest)
        return lines

    def rest(self) -> list[str]:
        """Return what came since the last line end as a line; an empty list if nothing came."""
        line = b"".join(self._parts)
        ended, self._parts, self._size = bool(self._parts), [], 0
        return [line.removesuffix(b"\r").decode(errors="replace")] if ended else []

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._size += len(piece)
        if self._size > MAX_LINE:
            raise UpstreamFailed(f"A line of the answer is longer than {MAX_LINE // 2**20} MiB.")
        self._parts.append(piece)
