"""Lines made of spans, how wide they are, and what must never reach a terminal."""

from __future__ import annotations

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
    "did_you_mean",
    "facts",
    "fit",
    "line",
    "line_width",
    "pad",
    "plain",
    "text_width",
]

Tone = Literal["", "good", "busy", "bad", "dim", "bold"]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text in one tone."""

    text: str
    tone: Tone = ""


Line = tuple[Span, ...]


class Renderable(Protocol):
    """Something that can be shown, and shown again a moment later."""

    def lines(self, *, now: datetime, width: int | None = None) -> Sequence[Line]:
        """The lines as they are at `now`, at most `width` columns wide where that is possible."""
        ...


def line(*parts: str | Span) -> Line:
    """A line of plain texts and spans."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def plain(line_: Line) -> str:
    """A line without its tones."""
    return "".join(span.text for span in line_).rstrip()


def clean(text: str) -> str:
    r"""One line without control characters: what others wrote must not steer this terminal.

    >>> clean("a\x1b[31mb\nc")
    'a [31mb c'
    """
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} else char for char in text)


def clean_block(text: str) -> str:
    """As `clean`, but line ends and tabs stay."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Zl", "Zp"} else "" for char in text
    )


def facts(text: str) -> list[str]:
    """The facts of a message that has several, as the platform joins them.

    >>> facts("no GPU found · about 67 MiB")
    ['no GPU found', 'about 67 MiB']
    """
    return [fact.strip() for fact in clean(text).split(" · ") if fact.strip()]


def text_width(text: str) -> int:
    """Columns that a text takes in a terminal (Unicode Standard Annex 11: wide characters take two)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, width: int) -> str:
    """The text with blanks after it."""
    return text + " " * (width - text_width(text))


def _cut(text: str, width: int) -> str:
    if text_width(text) <= width:
        return text
    kept, taken = "", 0
    for char in text:
        taken += text_width(char)
        if taken > width - 1:
            break
        kept += char
    return kept + "…" if width > 0 else ""


def line_width(line_: Line) -> int:
    """Columns that a line takes."""
    return sum(text_width(span.text) for span in line_)


def fit(line_: Line, width: int | None) -> Line:
    """The line, cut with an ellipsis where it is wider than `width`."""
    if width is None or line_width(line_) <= width:
        return line_
    spans, left = [], width
    for span in line_:
        piece = _cut(span.text, left)
        spans.append(Span(piece, span.tone))
        left -= text_width(piece)
        if piece != span.text:
            break
    return tuple(spans)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean "chat"?`` with a blank before it, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""
