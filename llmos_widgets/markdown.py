"""Rendering of a model's Markdown as HTML that can't run code or fetch anything.

JupyterLab treats the ``text/markdown`` of a cell that its reader has run as trusted: raw HTML stays, and a ``<script>``
or an ``onerror`` runs with all of the reader's permissions. A model's output depends on its training, its prompt and
the documents in it, so it can't be trusted. Here raw HTML becomes text, links lead only to web pages, and an image
becomes a link, because fetching it would send its address to a server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from html import escape
from typing import Any, Final

__all__ = ["answer_html"]

_SCHEMES: Final = ("http://", "https://", "mailto:")
_HIGHLIGHTED: Final = 20_000
"""Maximum length of highlighted code in characters; longer code is shown plain, since each update renders it again."""
# JupyterLab's colours for its editor, which suit light and dark themes
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
    """Return the answer as HTML; as preformatted text if it can't be rendered as Markdown."""
    try:
        return _markdown()(text)
    except (ImportError, RecursionError):
        return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'


@lru_cache(maxsize=1)
def _markdown() -> Callable[[str], str]:
    """Return the Markdown renderer, imported at first use."""
    import mistune  # a dependency of nbconvert, so it is installed wherever Jupyter is

    class Renderer(mistune.HTMLRenderer):
        """A renderer that escapes all text itself and doesn't rely on mistune's defaults."""

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
    """Return a link to a web page; for other schemes the text and the address. `shown` is HTML already."""
    if not url.strip().lower().startswith(_SCHEMES):
        return f"{shown} ({escape(url)})"
    return f'<a href="{escape(url.strip())}" target="_blank" rel="noopener noreferrer">{shown}</a>'


def _coloured(code: str, language: str) -> str:
    """Return code as HTML, highlighted if the language is known."""
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
