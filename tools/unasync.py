"""Generate the synchronous client from the asynchronous one: ``python tools/unasync.py [--check]``.

``llmos/client/_async`` is written by hand; ``llmos/client/_sync`` is this program's output and is committed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["generate", "main", "stale"]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "llmos" / "client" / "_async"
TARGET = ROOT / "llmos" / "client" / "_sync"
HEADER = "# Made from ../_async/{name} by tools/unasync.py. Change that file, then run: python tools/unasync.py\n"

NAMES = {
    "AsyncClient": "Client",
    "AsyncCollection": "Collection",
    "AsyncOpenAI": "OpenAI",
    "AsyncText": "Text",
    "AsyncTransport": "Transport",
    "DefaultAsyncHttpxClient": "DefaultHttpxClient",
    "_async": "_sync",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "aiter_text": "iter_text",
    "aread": "read",
    "asleep": "sleep",
}
"""Names beyond those that unasync knows itself."""

_DOCSTRING = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""')
_IN_DOCSTRINGS = (
    (re.compile(r"\bAsync(?=Client|Collection|OpenAI)"), ""),
    (re.compile(r"\basync (?=with|for)"), ""),
    (re.compile(r"\bawait "), ""),
)


def _library() -> object:
    """Return the library unasync."""
    # this file has the same name, so its own directory must not be searched
    here = str(Path(__file__).resolve().parent)
    kept = sys.path[:]
    sys.path[:] = [entry for entry in sys.path if entry not in {here, ""}]
    try:
        import unasync
    finally:
        sys.path[:] = kept
    return unasync


def _docstrings(source: str) -> str:
    def replace(found: re.Match[str]) -> str:
        text = found[0]
        for pattern, new in _IN_DOCSTRINGS:
            text = pattern.sub(new, text)
        return text

    return _DOCSTRING.sub(replace, source)


def generate() -> dict[str, str]:
    """Return the text of the synchronous files by name."""
    library = _library()
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "_async", Path(scratch) / "_sync"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        files = sorted(source.glob("*.py"))
        rule = library.Rule("/_async/", "/_sync/", additional_replacements=NAMES)  # type: ignore[attr-defined]
        library.unasync_files([str(path) for path in files], [rule])  # type: ignore[attr-defined]
        return {
            path.name: HEADER.format(name=path.name) + _docstrings((target / path.name).read_text(encoding="utf-8"))
            for path in files
        }


def stale() -> list[str]:
    """Return the names of generated files that are missing, superfluous or out of date."""
    wanted = generate()
    present = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.py")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main(argv: list[str] | None = None) -> int:
    """Write the files, or check them with ``--check``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is stale")
    args = parser.parse_args(argv)
    names = stale()
    if args.check:
        for name in names:
            sys.stderr.write(f"{(TARGET / name).relative_to(ROOT)} is stale. Run: python tools/unasync.py\n")
        return 1 if names else 0
    TARGET.mkdir(exist_ok=True)
    wanted = generate()
    for name in names:
        if name in wanted:
            (TARGET / name).write_text(wanted[name], encoding="utf-8")
        else:
            (TARGET / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
