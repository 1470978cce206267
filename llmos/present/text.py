"""Lines made of spans, their width, and removal of control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Literal, Protocol

__all__ = [
    "Line",
    "Renderable",
    "Span",
    "Tone",
    "clean",
    "clean_block",
    "cut",
    "did_you_mean",
    "escape_block",
    "facts",
    "fit",
    "hang",
    "line",
    "line_width",
    "pad",
    "plain",
    "text_width",
    "wrap",
]

_GAP = re.compile(r"(?<=\S) {2,}(?=\S)|^ +(?=\S)")
_WORDS = re.compile(r" *[^ ]+ *")

Tone = Literal["", "good", "busy", "bad", "dim", "bold"]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with one tone."""

    text: str
    tone: Tone = ""


Line = tuple[Span, ...]


class Renderable(Protocol):
    """Content that can be shown, and updated later."""

    def lines(self, *, now: datetime, width: int | None = None) -> Sequence[Line]:
        """Return the lines at the time `now`, at most `width` columns wide if possible."""
        ...


def line(*parts: str | Span) -> Line:
    """Make a line of strings and spans."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def plain(line_: Line) -> str:
    """Return a line's text without tones."""
    return "".join(span.text for span in line_).rstrip()


def clean(text: str) -> str:
    r"""Return a text as one line without control characters, which could control the reader's terminal.

    >>> clean("a\x1b[31mb\nc")
    'a [31mb c'
    """
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} else char for char in text)


_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters (C0, DEL, C1), Unicode's line ends, and marks that change the direction of text."""


def clean_block(text: str) -> str:
    r"""Remove control characters as `clean` does, without replacement, but keep line ends and tabs.

    >>> clean_block("a\x9b31mb\u202ec\n")
    'a31mbc\n'
    """
    return _STEERING.sub("", text)


def escape_block(text: str) -> str:
    r"""Escape as ``\uXXXX`` what `clean_block` removes: the JSON stays the same and can't control a terminal.

    >>> escape_block('{"a": "\x7f"}')
    '{"a": "\\u007f"}'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def facts(text: str) -> list[str]:
    """Split a message into the facts that the platform joined.

    >>> facts("no GPU found · about 67 MiB")
    ['no GPU found', 'about 67 MiB']
    """
    return [fact.strip() for fact in clean(text).split(" · ") if fact.strip()]


def text_width(text: str) -> int:
    """Return the columns that a text takes in a terminal (Unicode Standard Annex 11: wide characters take two)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, width: int) -> str:
    """Append spaces to a text up to `width`."""
    return text + " " * (width - text_width(text))


def cut(text: str, width: int) -> str:
    """Truncate a text with an ellipsis if it is wider than `width`."""
    if text_width(text) <= width:
        return text
    return _longest(text, width - 1) + "…" if width > 0 else ""


def line_width(line_: Line) -> int:
    """Return the columns that a line takes."""
    return sum(text_width(span.text) for span in line_)


def fit(line_: Line, width: int | None) -> Line:
    """Truncate a line with an ellipsis if it is wider than `width`."""
    if width is None or line_width(line_) <= width:
        return line_
    spans, left = [], width
    for span in line_:
        piece = cut(span.text, left)
        spans.append(Span(piece, span.tone))
        left -= text_width(piece)
        if piece != span.text:
            break
    return tuple(spans)


def hang(line_: Line) -> int:
    """Return the column in which the last cell of a line begins; continuation lines are indented to it.

    Cells are separated by two or more spaces.

    >>> hang(line("Name:  chat")), hang(line("no cells"))
    (7, 0)
    """
    text = plain(line_)
    cell = max((found.end() for found in _GAP.finditer(text)), default=0)
    return text_width(text[:cell])


def wrap(line_: Line, width: int | None) -> list[Line]:
    """Break a line at spaces if it is wider than `width`; continuation lines are indented to its last cell.

    If the last cell begins in the second half of the line, they are indented by a quarter of the width. A word that is
    wider than the available space is split.
    """
    if width is None or line_width(line_) <= width:
        return [line_]
    indent = hang(line_)
    indent = indent if indent <= width // 2 else width // 4
    lines: list[list[Span]] = [[]]
    room = width
    for span in line_:
        for word in _WORDS.findall(span.text) or [span.text]:
            rest = word
            while text_width(rest.rstrip()) > room:
                if room < width - indent:  # on a line of its own it may fit
                    lines.append([Span(" " * indent)])
                    room = width - indent
                    rest = rest.lstrip()
                    continue
                kept = _longest(rest, room) or rest[0]
                lines[-1].append(Span(kept, span.tone))
                lines.append([Span(" " * indent)])
                room, rest = width - indent, rest[len(kept) :]
            lines[-1].append(Span(rest, span.tone))
            room -= text_width(rest)
    return [tuple(spans) for spans in lines]


def _longest(text: str, width: int) -> str:
    """Return the longest beginning of a text that fits `width`."""
    taken = 0
    for end, char in enumerate(text):
        taken += text_width(char)
        if taken > width:
            return text[:end]
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean "chat"?`` with a leading space, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""
