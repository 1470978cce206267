"""Answers of models are formatted, and can't run code or fetch anything in the reader's page."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_widgets.markdown import answer_html

TAGS = {
    *("a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol"),
    *("p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
ATTRIBUTES = {"href", "target", "rel", "style", "start"}


class Checked(HTMLParser):
    """A parser that collects all tags, attributes and URLs."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            if name == "href":
                self.addresses.append(value)
                assert value.lower().startswith(("http://", "https://", "mailto:")), value
            if name == "style":
                assert "url" not in value
                assert value.startswith(("color:var(--jp-mirror-editor-", "text-align:")), value

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def check(text: str) -> str:
    html = answer_html(text)
    parser = Checked()
    parser.feed(html)
    parser.close()
    return html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "hello\n\n<img src=x onerror=alert(1)>\n",
        "a <b onmouseover=alert(1)>b</b> <!-- c --> <?php ?> <![CDATA[x]]>",
        "<svg/onload=alert(1)>",
        "[x](javascript:alert(1)) [x](JaVaScRiPt:alert(1)) [x](&#106;avascript:alert(1)) [x](java\tscript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=) [x](vbscript:x) [x](//evil.example) [x](/hub/logout) [x](\x01javascript:x)",
        "![x](http://evil.example/?secret) ![x](javascript:alert(1))",
        "[x]: javascript:alert(1)\n\n[x] ![x]",
        '[x](http://e.example "a\\"onclick=alert(1)") [x](http://e.example/"onclick="x)',
        "<javascript:alert(1)> <http://e.example/'onclick=x>",
        "$$\n<img src=x onerror=alert(1)>\n$$ and $<img/onerror=x>$",
        "```<img onerror=x>\n<script>\n```\n\n~~~html\n<script>alert(1)</script>\n~~~",
        "| a | <img onerror=x> |\n|---|:-:|\n| `<b>` | ~~<script>~~ |",
        "# <script>x</script>\n> <iframe src=x>\n\n1. <object>\n",
    ],
)
def test_nothing_runs_and_nothing_is_fetched(text):
    html = check(text)
    for word in ("<script", "<img", "<svg", "<iframe", "<object"):
        assert word not in html.lower()


@given(
    st.lists(
        st.sampled_from(
            [
                *"<>`$~*_[]()!\"'&\\|#\n -:=/",
                "<script>",
                "<img src=x onerror=y>",
                "javascript:",
                "```",
                "$$",
                "a",
                "&lt;",
            ]
        ),
        max_size=40,
    )
)
def test_no_text_at_all_makes_another_tag(parts):
    check("".join(parts))


def test_it_is_formatted():
    html = check(
        "A **dictionary** maps `keys`:\n\n```python\ndef f(x):\n    return '<b>'  # why\n```\n\n[docs](https://docs.python.org)\n\n$a_1 * b_2$"
    )
    assert "<strong>dictionary</strong>" in html
    assert "<code>keys</code>" in html
    assert '<span style="color:var(--jp-mirror-editor-keyword-color)">def</span>' in html
    assert "&lt;b&gt;" in html
    assert 'href="https://docs.python.org"' in html
    assert r"\(a_1 * b_2\)" in html


@pytest.mark.parametrize("piece", ["[", "*a ", "`a ", "![](", "<a ", "$a ", "> ", "| a ", "**_", "[a](<"])
def test_no_text_takes_long(piece):
    began = time.thread_time()
    check(piece * 2_000)
    assert time.thread_time() - began < 5
