"""A model's Markdown as HTML in which nothing can run and nothing is fetched.

JupyterLab shows the ``text/markdown`` of a cell that its reader has run as trusted: raw HTML in it stays, and
a ``<script>`` or an ``onerror`` runs with everything the reader may do. A model says whatever its training, its
prompt or a document in it makes it say, so its Markdown is rendered here, where raw HTML becomes text, links
lead to web pages only, and an image is a link: fetching it would tell its server what the address says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from html import escape
from typing import Any, Final

__all__ = ["answer_html"]

_SCHEMES: Final = ("http://", "https://", "mailto:")
_HIGHLIGHTED: Final = 20_000
"""Characters of a block of code that are coloured; a longer one is shown plain, since each redraw does it anew."""
# JupyterLab's own colours for its editor, so that code reads the same in light and dark themes.
_COLOURS: Final = {
    "Token.Comment": "comment",
    "Token.Keyword": "keyword",
    "Token.Literal.Number": "number",
    "Token.Literal.String": "string",
    "Token.Name.Builtin": "builtin",
    "Token.Name.Class": "def",
    "Token.Name.Function": "def",
    "Token.Operator.Word": "keyword",
    "Token.Operator": "operator",
}


def answer_html(text: str) -> str:
    """The answer as HTML; as it stands where it can't be read as Markdown."""
    try:
        return _markdown()(text)
    except (ImportError, RecursionError):
        return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'


@lru_cache(maxsize=1)
def _markdown() -> Callable[[str], str]:
    """The parser; imported when first needed, and there wherever Jupyter is (nbconvert needs it)."""
    import mistune

    class Renderer(mistune.HTMLRenderer):
        """Escapes by itself whatever comes from the text, so that no version's defaults matter."""

        def block_html(self, html: str) -> str:
            return f"<p>{escape(html.strip())}</p>\n"

        def inline_html(self, html: str) -> str:
            return escape(html)

        def link(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002 - mistune's signature
            return _link(text or escape(url), url)

        def image(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002 - mistune's signature
            return _link(f"[{text or 'image'}]", url)

        def block_code(self, code: str, info: str | None = None) -> str:
            return f"<pre><code>{_coloured(code, (info or '').split(None, 1)[0] if info else '')}</code></pre>\n"

        def codespan(self, text: str) -> str:
            return f"<code>{escape(text)}</code>"

        def block_math(self, text: str) -> str:
            return f"<div>$$\n{escape(text)}\n$$</div>\n"

        def inline_math(self, text: str) -> str:
            return rf"<span>\({escape(text)}\)</span>"

    parse: Any = mistune.create_markdown(renderer=Renderer(escape=True), plugins=["strikethrough", "table", "math"])
    return lambda text: str(parse(text))


def _link(shown: str, url: str) -> str:
    """A link to a web page; to anything else, what is shown and the address as text. `shown` is HTML already."""
    if not url.strip().lower().startswith(_SCHEMES):
        return f"{shown} ({escape(url)})"
    return f'<a href="{escape(url.strip())}" target="_blank" rel="noopener noreferrer">{shown}</a>'


def _coloured(code: str, language: str) -> str:
    """Code as HTML, its words coloured where the language is known."""
    if not language or len(code) > _HIGHLIGHTED:
        return escape(code)
    try:
        from pygments import lex  # type: ignore[import-untyped]  # it comes without types
        from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # see above
        from pygments.util import ClassNotFound  # type: ignore[import-untyped]  # see above

        lexer = get_lexer_by_name(language, stripnl=False)
    except (ImportError, ClassNotFound):
        return escape(code)
    return "".join(_span(str(kind), text) for kind, text in lex(code, lexer))


def _span(kind: str, text: str) -> str:
    safe = escape(text)
    colour = next((name for prefix, name in _COLOURS.items() if kind.startswith(prefix)), "")
    return f'<span style="color:var(--jp-mirror-editor-{colour}-color)">{safe}</span>' if colour else safe
