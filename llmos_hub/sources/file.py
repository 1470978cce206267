"""``file:///path/model.gguf``: a model on this machine, used in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from llmos.errors import Invalid, SourceFailed
from llmos_hub.sources.base import ModelFiles, Reporter
from llmos_hub.sources.gguf_files import parts_of
from llmos_hub.sources.gguf_header import MAGIC, read_header
from llmos_hub.sources.not_gguf import BEGINNING, why_not_gguf

__all__ = ["fetch"]


def fetch(uri: str, directory: Path, report: Reporter) -> ModelFiles:  # noqa: ARG001 - the protocol's
    """Check the file and read its header. Nothing is copied, so the cache directory is not used.

    The revision is made of size and modification time. A hash would mean to read up to 40 GB before every start.

    Raises
    ------
    SourceFailed
        The file doesn't exist or can't be read.
    Invalid
        It is not a GGUF model.
    """
    path = _existing(uri)
    paths = _parts(path)
    for each in paths:
        _check(each)
    states = [each.stat() for each in paths]
    size = sum(state.st_size for state in states)
    newest = max(state.st_mtime_ns for state in states)
    header = read_header(*paths)
    note = f"{len(paths)} parts found together" if len(paths) > 1 else ""
    return ModelFiles(uri, f"stat:{size}-{newest}", str(paths[0]), "gguf", size, header, note=note)


def _existing(uri: str) -> Path:
    """Return the path in a URI: as written if that exists, otherwise percent-decoded."""
    plain = Path(uri.removeprefix("file://"))
    if not plain.is_absolute():
        raise SourceFailed(f'"{uri[:120]}" needs an absolute path: file:///path/model.gguf')
    decoded = Path(unquote(str(plain)))
    if ".." in decoded.parts:  # if percent-encoded, the check of spec.model does not see it
        raise SourceFailed(f'"{uri[:120]}" needs an absolute path without "..": file:///path/model.gguf')
    try:
        return plain if plain.exists() or not decoded.exists() else decoded
    except PermissionError as error:
        raise SourceFailed(
            f"{plain} can't be looked at: no permission for {error.filename} (uid {os.geteuid()})."
        ) from error


def _parts(path: Path) -> list[Path]:
    """Return all parts of the model that the path belongs to, in order."""
    paths = parts_of(path)
    if not 1 <= len(paths) <= 1000:
        raise Invalid(f"{path.name} claims to be one of {len(paths)} parts.")
    missing = [each.name for each in paths if not each.exists()]
    if missing and len(paths) > 1:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SourceFailed(
            f"{path.name} is one of {len(paths)} parts, of which are missing in {path.parent}: {', '.join(missing[:3])}{more}."
        )
    return paths


def _check(path: Path) -> None:
    """Refuse a path that isn't a readable regular file beginning like GGUF."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            found = sorted(p.name for p in path.iterdir() if p.suffix == ".gguf")[:5]
            hint = f" It holds: {', '.join(found)}." if found else " It holds no .gguf file."
            raise SourceFailed(f"{path} is a directory; name the GGUF file in it.{hint}")
        if not stat.S_ISREG(kind):
            raise SourceFailed(f"{path} is not a regular file.")
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
    except FileNotFoundError as error:
        near = f" There is no directory {path.parent} either." if not path.parent.is_dir() else ""
        raise SourceFailed(f"There is no file {path} on the machine that runs LLMOS.{near}") from error
    except PermissionError as error:
        raise SourceFailed(
            f"{path} can't be read by uid {os.geteuid()}, under which LLMOS looks at models. Allow it: chmod a+r {path}"
        ) from error
    if not beginning.startswith(MAGIC):
        raise Invalid(f"{path} is {why_not_gguf(beginning)}")
