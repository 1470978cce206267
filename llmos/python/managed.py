"""A guard that keeps pip out of environments that LLMOS makes from its locks, with advice on where to install instead.

PEP 668 defines a marker file for this, but pip looks for it only outside of virtual environments. A ``.pth`` file,
which Python reads at its start, checks for it here. Users' own packages (`llmos.python.layer`) have no marker.
"""

from __future__ import annotations

import configparser
import os
import re
import sys

__all__ = ["main", "mark", "refuse", "unmark"]

_MARK = "EXTERNALLY-MANAGED"
_LINK = "llmos_managed.pth"
# read at every start of Python: it imports nothing unless one of the two words is an argument
_LINE = """import sys; {"install", "uninstall"}.isdisjoint(sys.orig_argv) or __import__("llmos.python.managed", fromlist=["refuse"]).refuse()\n"""
_TEXT = """[externally-managed]
Error=This environment belongs to LLMOS, which makes it from its locks; what is put in by hand would break it for all.
 Packages of your own:  %pip install NAME  in a notebook,  pip install NAME  in a terminal of a notebook server.
 Nobody else has those;  llmos python  shows them,  llmos python reset  takes them out.
"""
_ELSEWHERE = (
    "--target",
    "-t",
    "--prefix",
    "--root",
    "--dry-run",
    "--break-system-packages",
    "--python",
    "--help",
    "-h",
)


def _library(prefix: str) -> str:
    return f"{prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}"


def mark(prefix: str) -> None:
    """Mark the environment of this Python's version at `prefix`, in which LLMOS is installed."""
    for path, text in ((f"{_library(prefix)}/{_MARK}", _TEXT), (f"{_library(prefix)}/site-packages/{_LINK}", _LINE)):
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - no pathlib at every start of pip
            file.write(text)


def unmark(prefix: str) -> None:
    """Remove the marker, because set-up itself has to run pip once."""
    if os.path.exists(f"{_library(prefix)}/{_MARK}"):  # noqa: PTH110 - as above
        os.remove(f"{_library(prefix)}/{_MARK}")  # noqa: PTH107 - as above


def refuse() -> None:
    """Exit if this program is pip about to change a marked environment."""
    words = sys.orig_argv[1:]
    at = next(i for i, word in enumerate(words) if word in ("install", "uninstall"))
    before = words[:at]
    is_pip = any(re.fullmatch(r"pip[0-9.]*", os.path.basename(word)) for word in before)  # noqa: PTH119 - as above
    marker = f"{_library(sys.prefix)}/{_MARK}"
    if not is_pip or not os.path.exists(marker):  # noqa: PTH110 - as above
        return
    if any(word.partition("=")[0] in _ELSEWHERE for word in words):
        return
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(marker, encoding="utf-8")
    sys.stderr.write(
        f"error: externally-managed-environment\n\n{parser.get('externally-managed', 'Error', fallback='')}\n"
    )
    sys.stderr.flush()
    os._exit(1)  # site, which runs .pth files, would swallow an exception


def main() -> None:
    """Mark the environment that this runs in; used when images are built."""
    mark(sys.prefix)


if __name__ == "__main__":
    main()
