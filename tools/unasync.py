"""Makes the synchronous client from the asynchronous one.

``llmos/client/_async`` is written by hand; ``llmos/client/_sync`` is made from it and is committed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "llmos" / "client" / "_async"
TARGET = ROOT / "llmos" / "client" / "_sync"
HEADER = "# Made from ../_async/{name} by `make generate`; don't edit it.\n"

NAMES = {
    "AsyncClient": "Client",
    "AsyncCollection": "Collection",
    "AsyncFiles": "Files",
    "AsyncOpenAI": "OpenAI",
    "AsyncText": "Text",
    "AsyncTransport": "Transport",
    "DefaultAsyncHttpxClient": "DefaultHttpxClient",
    "_async": "_sync",
    "aclose": "close",
    "ain_parallel": "in_parallel",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "aiter_text": "iter_text",
    "aread": "read",
    "asleep": "sleep",
}
"""Names beyond those that unasync knows itself."""

_DOCSTRING = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""')
_IN_DOCSTRINGS = (
    (re.compile(r"\bAsync(?=Client|Collection|Files|OpenAI)"), ""),
    (re.compile(r"\basync (?=with|for)"), ""),
    (re.compile(r"\bawait "), ""),
)


def _docstrings(source: str) -> str:
    def replace(found: re.Match[str]) -> str:
        text = found[0]
        for pattern, new in _IN_DOCSTRINGS:
            text = pattern.sub(new, text)
        return text

    return _DOCSTRING.sub(replace, source)


def files() -> dict[Path, str]:
    """Return the text of each synchronous file by its path."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "_async", Path(scratch) / "_sync"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        names = sorted(path.name for path in source.glob("*.py"))
        rule = unasync.Rule("/_async/", "/_sync/", additional_replacements=NAMES)
        unasync.unasync_files([str(source / name) for name in names], [rule])
        return {
            TARGET / name: HEADER.format(name=name) + _docstrings((target / name).read_text(encoding="utf-8"))
            for name in names
        }
