"""Tables with aligned columns that fit the available width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from llmos.present.text import Line, Span, Tone, clean, cut, pad, text_width

__all__ = ["Row", "Table"]

_GAP = "  "
_NARROWEST = 8
"""Minimum width of a shortened column."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    cells
        One text per heading.
    tones
        Tones of cells by heading; other cells have none.
    note
        A sentence below the row, such as the reason for its state.
    """

    cells: Sequence[str]
    tones: dict[str, Tone] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with headings.

    Attributes
    ----------
    headings
        The headings, in capitals.
    rows
        The rows.
    empty
        A sentence shown if there are no rows.
    elastic
        Headings of the columns that may be shortened on a narrow terminal, in this order.
    """

    headings: Sequence[str]
    rows: Sequence[Row]
    empty: str = "Nothing is here."
    elastic: Sequence[str] = ()

    def lines(self, *, now: datetime | None = None, width: int | None = None) -> list[Line]:  # noqa: ARG002 - part of Renderable
        """Return the table's lines, at most `width` columns wide if possible."""
        if not self.rows:
            return [(Span(self.empty, "dim"),)]
        grid = [[clean(cell) for cell in row.cells] for row in self.rows]
        widths = [
            max(text_width(heading), *(text_width(cells[n]) for cells in grid))
            for n, heading in enumerate(self.headings)
        ]
        self._squeeze(widths, width)
        last = len(self.headings) - 1
        lines: list[Line] = [
            tuple(Span(self._cell(h, widths[n], last=n == last), "bold") for n, h in enumerate(self.headings))
        ]
        indent = " " * (widths[0] + len(_GAP))
        for row, cells in zip(self.rows, grid, strict=True):
            lines.append(
                tuple(
                    Span(self._cell(cell, widths[n], last=n == last), row.tones.get(self.headings[n], ""))
                    for n, cell in enumerate(cells)
                )
            )
            if row.note:
                lines += _note(row.note, indent, width)
        return lines

    def _squeeze(self, widths: list[int], width: int | None) -> None:
        """Shorten elastic columns, in place, until the table fits `width`."""
        if width is None:
            return
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        for heading in self.elastic:
            if over <= 0 or heading not in self.headings:
                continue
            n = list(self.headings).index(heading)
            take = max(0, min(over, widths[n] - _NARROWEST))
            widths[n] -= take
            over -= take

    @staticmethod
    def _cell(text: str, width: int, *, last: bool) -> str:
        return cut(text, width) if last else pad(cut(text, width), width) + _GAP


def _note(note: str, indent: str, width: int | None) -> list[Line]:
    """Return the lines of a row's note, wrapped."""
    import textwrap

    room = None if width is None else width - len(indent) - 2
    if room is not None and room < 20:
        indent, room = "  ", max(20, (width or 0) - 4)
    pieces = textwrap.wrap(clean(note), room) if room is not None else [clean(note)]
    return [(Span(indent), Span("└ " if n == 0 else "  ", "dim"), Span(piece, "dim")) for n, piece in enumerate(pieces)]
