"""The documentation: every relative link leads to an existing file and heading, and the index names every page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "images/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
KINDS = ("tutorial", "how-to", "reference", "explanation")

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
SCHEME = re.compile(r"[a-z]+:")


def links(page: Path) -> list[str]:
    """Return the targets of a page's relative links."""
    prose = CODE.sub("``", FENCED.sub("", page.read_text(encoding="utf-8")))
    return [target for target in LINK.findall(prose) if not SCHEME.match(target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*?) *$", prose, re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{slug}-{number}"
        found.add(anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path):
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: there is no such file"
        assert found.is_relative_to(ROOT), f"{target}: it is outside of the repository"
        if anchor:
            assert anchor in anchors(found), f"{target}: there is no such heading"


def test_links_and_anchors_are_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# `a` b: c\n## Same\n## Same\n```\n# no [code](x.md)\n```\n`[n](y.md)` [z](z.md#t) [w](https://w/)\n"
    )
    assert links(page) == ["z.md#t"]
    assert anchors(page) == {"a-b-c", "same", "same-1"}


def test_the_index_names_every_page():
    listed = {(DOCS / target.partition("#")[0]).resolve() for target in links(DOCS / "README.md")}
    pages = {page for kind in KINDS for page in (DOCS / kind).rglob("*.md")}
    assert pages <= listed
