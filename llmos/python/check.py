"""Compares an environment with what was put into it.

At every start the folders' times alone are looked at (3,000 folders, a hundredth of a second): files that come and go
change them. Where one has changed, every package's own list of files is gone through; only what that finds counts.
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

__all__ = ["RECORD", "damage", "distrust", "record", "unchanged"]

RECORD = ".llmos-record"
_OURS = frozenset({"__pycache__", "_llmos_managed.py", "llmos_managed.pth", "_virtualenv.py", "_virtualenv.pth"})


_READ_UP_TO = 1024 * 1024  # bytes: all sources, and none of the libraries that would take seconds


_EXCHANGEABLE = ("xllamacpp-",)


def _site(prefix: str) -> str:
    return str(next(Path(prefix).glob("lib/python3.*/site-packages"), Path(prefix, "lib")))


def _folders(site: str) -> Iterator[tuple[str, int]]:
    """Every folder of an environment but those of bytecode, with its time."""
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
    """Remember an environment as it is: it was just made, or found whole."""
    site = _site(prefix)
    content = {"packages": sorted(_packages(site)), "folders": dict(_folders(site))}
    path = Path(prefix, RECORD)
    new = path.with_name(RECORD + ".new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)


def _packages(site: str) -> list[str]:
    """Names and versions of what is installed: ``pydantic-2.14.3``."""
    return [entry.name.removesuffix(".dist-info") for entry in os.scandir(site) if entry.name.endswith(".dist-info")]


def unchanged(prefix: str) -> bool:
    """Whether no file has come or gone since it was remembered."""
    try:
        known = json.loads(Path(prefix, RECORD).read_text(encoding="utf-8"))["folders"]
    except (OSError, ValueError, KeyError):
        return False
    site = _site(prefix)
    try:
        # the same folders with the same times: a new one has changed the time of the one it is in
        return bool(known) and all(os.stat(f"{site}/{folder}").st_mtime_ns == then for folder, then in known.items())  # noqa: PTH116
    except OSError:
        return False


def distrust(prefix: str) -> None:
    """Let the next start look at every file: something that the times of folders don't show was found."""
    path = Path(prefix, RECORD)
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "folders": {}}), encoding="utf-8")


def damage(prefix: str, *, contents: bool = False) -> list[str]:
    """Return what differs from what was put in, in words; with `contents` every source is read as well.

    Packages that came, went or changed their version, files of theirs that are missing or have another size, and
    modules that belong to none: ``sitecustomize.py``.
    """
    site = _site(prefix)
    try:
        known = set(json.loads(Path(prefix, RECORD).read_text(encoding="utf-8"))["packages"])
        found = set(_packages(site))
    except (OSError, ValueError, KeyError):
        return ["it was not set up to its end"]
    # a machine with a GPU has another build of it (docs/guide.md)
    known, found = ({name for name in names if not name.startswith(_EXCHANGEABLE)} for names in (known, found))
    versions = dict(name.rpartition("-")[::2] for name in found - known)
    words = []
    for name in sorted(known - found):
        package, _, version = name.rpartition("-")
        other = versions.pop(package, None)
        words.append(f"{package} is {other} instead of {version}" if other else f"{package} {version} is missing")
    words += [f"{package} {version} was put in" for package, version in sorted(versions.items())]
    owned: set[str] = set()
    for name in sorted(known & found):
        words += _damaged(site, name, owned, contents=contents)
    for name in _packages(site):
        if name.startswith(_EXCHANGEABLE):
            _damaged(site, name, owned, contents=False)
    strangers = [entry.name for entry in os.scandir(site) if entry.name not in owned | _OURS]
    words += [f"{name} belongs to no package" for name in sorted(strangers) if not name.endswith(".dist-info")]
    return words


def _damaged(site: str, name: str, owned: set[str], *, contents: bool) -> list[str]:
    """What is wrong with one package's files; the first is enough. Its top-level names are added to `owned`."""
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
    """Whether a file is what was installed; of large ones, which nobody edits, the size has to do."""
    if os.stat(path).st_size > _READ_UP_TO:  # noqa: PTH116 - as above
        return True
    algorithm, _, value = digest.partition("=")
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, algorithm).digest()
    return urlsafe_b64encode(found).rstrip(b"=").decode() == value
