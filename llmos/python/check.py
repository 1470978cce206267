"""Comparison of an environment with what was installed into it.

Each start compares only the folders' modification times (3,000 folders, about 10 ms), which change when files are
added or removed. If one has changed, the files of every package are compared with its own list, which decides.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from llmos.files import replace_file

__all__ = ["RECORD", "damage", "distrust", "incomplete", "record", "unchanged"]

RECORD = ".llmos-record"
_OURS = frozenset({"__pycache__", "_llmos_managed.py", "llmos_managed.pth", "_virtualenv.py", "_virtualenv.pth"})


_READ_UP_TO = 1024 * 1024  # bytes: all sources, and none of the libraries that would take seconds


_EXCHANGEABLE = ("xllamacpp-",)  # packages that may be replaced by another build


def _site(prefix: str) -> str:
    return str(next(Path(prefix).glob("lib/python3.*/site-packages"), Path(prefix, "lib")))


def _folders(site: str) -> Iterator[tuple[str, int]]:
    """Yield every folder of an environment, except those of bytecode, with its modification time."""
    waiting = [site]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
            yield os.path.relpath(folder, site), os.stat(folder).st_mtime_ns  # noqa: PTH116 - thousands of them, at every start
        except OSError:
            continue
        waiting += [
            entry.path for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__"
        ]


def record(prefix: str) -> None:
    """Save the state of an environment that was just made or checked."""
    site = _site(prefix)
    content = {"packages": sorted(_packages(site)), "folders": dict(_folders(site))}
    replace_file(Path(prefix, RECORD), json.dumps(content))


def _packages(site: str) -> list[str]:
    """Return names and versions of the installed packages: ``pydantic-2.14.3``."""
    return [entry.name.removesuffix(".dist-info") for entry in os.scandir(site) if entry.name.endswith(".dist-info")]


def unchanged(prefix: str) -> bool:
    """Return whether no file was added or removed since `record`."""
    try:
        known = json.loads(Path(prefix, RECORD).read_text(encoding="utf-8"))["folders"]
    except (OSError, ValueError, KeyError):
        return False
    site = _site(prefix)
    try:
        # the same folders with the same times; a new folder changes the time of the one that contains it
        return bool(known) and all(os.stat(f"{site}/{folder}").st_mtime_ns == then for folder, then in known.items())  # noqa: PTH116
    except OSError:
        return False


def distrust(prefix: str) -> None:
    """Make the next start check every file, because of a change that the folders' times don't show."""
    path = Path(prefix, RECORD)
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "folders": {}}), encoding="utf-8")


def damage(prefix: str, *, contents: bool = False, additions: bool = True) -> list[str]:
    """Return the differences from the recorded state, in words; with `contents` every source file is read as well.

    Differences are packages that were added, removed or changed to another version, files that are missing or have
    another size, and modules that belong to no package, such as ``sitecustomize.py``. Without `additions`, what was
    added is none: packages are being installed.
    """
    site = _site(prefix)
    try:
        known = set(json.loads(Path(prefix, RECORD).read_text(encoding="utf-8"))["packages"])
        found = set(_packages(site))
    except (OSError, ValueError, KeyError):
        return ["it was not set up to its end"]
    # on a machine with a GPU another build of it is installed (docs/how-to/use-gpus.md)
    known, found = ({name for name in names if not name.startswith(_EXCHANGEABLE)} for names in (known, found))
    versions = dict(name.rpartition("-")[::2] for name in found - known)
    words = []
    for name in sorted(known - found):
        package, _, version = name.rpartition("-")
        other = versions.pop(package, None)
        words.append(f"{package} is {other} instead of {version}" if other else f"{package} {version} is missing")
    if additions:
        words += [f"{package} {version} was put in" for package, version in sorted(versions.items())]
    owned: set[str] = set()
    for name in sorted(known & found):
        words += _damaged(site, name, owned, contents=contents)
    if not additions:
        return words
    for name in _packages(site):
        if name not in known:  # another version's files, or another build's, are not strangers as well
            _damaged(site, name, owned, contents=False)
    strangers = [entry.name for entry in os.scandir(site) if entry.name not in owned | _OURS]
    words += [f"{name} belongs to no package" for name in sorted(strangers) if not name.endswith(".dist-info")]
    return words


def incomplete(prefix: str) -> list[str]:
    """Return the names of packages that were added since `record` and lack files: an installation was interrupted."""
    site = _site(prefix)
    try:
        known = set(json.loads(Path(prefix, RECORD).read_text(encoding="utf-8"))["packages"])
        added = sorted(set(_packages(site)) - known)
    except (OSError, ValueError, KeyError):
        return []
    return [name.rpartition("-")[0] for name in added if _damaged(site, name, set(), contents=True)]


def _damaged(site: str, name: str, owned: set[str], *, contents: bool) -> list[str]:
    """Return the first difference in a package's files as a list; add its top-level names to `owned`."""
    trouble: list[str] = []
    try:
        with Path(site, f"{name}.dist-info", "RECORD").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3]
    except OSError:
        return [f"{name}: its list of files is missing"]
    for path, digest, size in rows:
        owned.add(path.partition("/")[0])
        if trouble or path.endswith(".pyc"):
            continue
        full = f"{site}/{path}"
        try:
            if (size and os.stat(full).st_size != int(size)) or (contents and digest and not _matches(full, digest)):  # noqa: PTH116 - ten thousands of them
                trouble.append(f"{name}: {path} was changed")
        except OSError:
            trouble.append(f"{name}: {path} is missing")
    return trouble


def _matches(path: str, digest: str) -> bool:
    """Return whether a file has the recorded hash; large files, which are hardly edited by hand, aren't read."""
    if os.stat(path).st_size > _READ_UP_TO:  # noqa: PTH116 - as above
        return True
    algorithm, _, value = digest.partition("=")
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above; `file_digest` takes a new 256 KiB for each
        found = hashlib.new(algorithm, file.read()).digest()
    return urlsafe_b64encode(found).rstrip(b"=").decode() == value
