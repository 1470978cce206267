"""Lines of spans, as the terminal shows them, as HTML for a notebook. Does no I/O.

Colours are JupyterLab's variables, so that they suit light and dark themes; colour never is the only sign. The same
text is added as ``text/plain`` for the saved document, for consoles and for screen readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from llmos.present.tables import Table
from llmos.present.text import Line, Renderable, hang, plain

__all__ = ["bundle", "lines_html", "table_html"]

_TONES = {
    "good": "color:var(--jp-success-color1,#2e7d32)",
    "busy": "color:var(--jp-warn-color1,#b26a00)",
    "bad": "color:var(--jp-error-color1,#c62828)",
    "dim": "opacity:.7",
    "bold": "font-weight:600",
}
_PRE = "margin:0;white-space:pre-wrap;word-break:normal;overflow-wrap:break-word;line-height:1.45;font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
_MOST_HANGING = "40vw"
"""Maximum indentation of continuation lines, so that they have room in narrow cells."""
# Not a percentage: those of padding-left and text-indent refer to different widths, and lines would begin in the middle.
_CELL = "text-align:left;padding:.2em 1.2em .2em 0;vertical-align:top;white-space:nowrap"
_ELASTIC = _CELL.replace("nowrap", "normal")
_NOTE = "text-align:left;padding:0 0 .4em 1.2em;opacity:.75;white-space:normal"


def _span(text: str, tone: str) -> str:
    safe = escape(text)
    return f'<span style="{_TONES[tone]}">{safe}</span>' if tone in _TONES and text.strip() else safe


def lines_html(lines: Sequence[Line]) -> str:
    """Return lines as HTML with colours; long lines continue below their last cell."""
    return f'<pre style="{_PRE}">{"".join(_line(line) for line in lines)}</pre>'


def _line(line: Line) -> str:
    columns = hang(line)
    indent = f"min({columns}ch,{_MOST_HANGING})"
    style = f' style="padding-left:{indent};text-indent:calc(-1*{indent})"' if columns else ""
    text = "".join(_span(span.text, span.tone) for span in line)
    return f"<div{style}>{text or '&#8203;'}</div>"


def table_html(table: Table) -> str:
    """Return a table as an HTML table; notes span the whole width below their rows."""
    if not table.rows:
        return f'<p style="opacity:.75">{escape(table.empty)}</p>'
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(heading)}</th>' for heading in table.headings)
    rows = []
    for row in table.rows:
        cells = "".join(
            f'<td style="{_ELASTIC if heading in table.elastic else _CELL}">{_span(cell, row.tones.get(heading, ""))}</td>'
            for heading, cell in zip(table.headings, row.cells, strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
        if row.note:
            rows.append(f'<tr><td colspan="{len(table.headings)}" style="{_NOTE}">└ {escape(row.note)}</td></tr>')
    return f'<table style="margin:0;border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def bundle(content: Renderable, now: datetime) -> dict[str, str]:
    """Return the MIME bundle for `content`: HTML and the same as plain text."""
    lines = content.lines(now=now, width=None)
    html = table_html(content) if isinstance(content, Table) else lines_html(lines)
    return {"text/html": html, "text/plain": "\n".join(plain(line) for line in lines)}
