"""Download of a package's file from the package index that is configured on this machine, as pip and uv do.

The index is configured by ``PIP_INDEX_URL``, ``UV_DEFAULT_INDEX`` or ``UV_INDEX_URL``, or in pip's configuration
files; the default is PyPI. So the demo models come from a site's mirror if it has one. The protocol is the simple
repository API (https://packaging.python.org/en/latest/specifications/simple-repository-api/), as JSON or HTML.
Nothing of a package is installed or run: it is only a way to get a pinned file.
"""

from __future__ import annotations

import configparser
import functools
import hashlib
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from llmos.errors import SourceFailed
from llmos_hub.sources.cache import Cache
from llmos_hub.sources.download import Meter, Refused, Remote, download, new_client, unreachable

__all__ = ["IndexSettings", "PinnedWheel", "default_index", "fetch_wheel"]

_ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_NAMED_INDEX = re.compile(r"^[A-Za-z0-9_.-]+=(?=https?://)")  # uv's NAME=URL


@functools.cache
def default_index() -> str:
    """Return pip's default index.

    Raises
    ------
    SourceFailed
        pip isn't installed here.
    """
    # in a separate process, since importing pip changes the one that imports it
    code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        message = (
            "Neither pip nor PIP_INDEX_URL says where Python packages come from. Set PIP_INDEX_URL to a package index."
        )
        raise SourceFailed(message) from None
    return done.stdout.strip()


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


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The configured package indexes.

    Attributes
    ----------
    indexes
        URLs of simple indexes, in the order in which they are asked.
    find_links
        Local directories that may contain the file.
    certificates
        Path of a bundle of certificates to trust instead of the built-in ones.
    """

    indexes: tuple[str, ...]
    find_links: tuple[Path, ...] = ()
    certificates: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> IndexSettings:
        """Read the variables of pip and uv, and pip's configuration files."""
        configured = _pip_configuration(environ)
        index = (
            environ.get("PIP_INDEX_URL")
            or _NAMED_INDEX.sub("", environ.get("UV_DEFAULT_INDEX", ""))
            or environ.get("UV_INDEX_URL")
            or configured.get("index-url")
            or default_index()
        )
        extra = environ.get("PIP_EXTRA_INDEX_URL") or configured.get("extra-index-url", "")
        links = environ.get("PIP_FIND_LINKS") or configured.get("find-links", "")
        certificates = environ.get("PIP_CERT") or configured.get("cert") or environ.get("SSL_CERT_FILE")
        return cls(
            indexes=(index, *extra.split()),
            find_links=tuple(
                _local(link) for link in shlex.split(links) if "://" not in link or link.startswith("file:")
            ),
            certificates=certificates or None,
        )


def _local(link: str) -> Path:
    return Path(unquote(urlsplit(link).path) if link.startswith("file:") else link).expanduser()


def _pip_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the section ``global`` of pip's configuration files; later files take precedence, as in pip."""
    home = Path(environ.get("HOME") or "/nonexistent")
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        user / "pip" / "pip.conf",
    ]
    files.append(Path(sys.prefix) / "pip.conf")
    only = environ.get("PIP_CONFIG_FILE")
    files = [] if only == os.devnull else [*files, Path(only)] if only else files
    parser = configparser.RawConfigParser()
    for file in files:
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip reports what is wrong with it
    return dict(parser["global"]) if parser.has_section("global") else {}


class _Anchors(HTMLParser):
    """A parser that collects the links of an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _links(response: httpx.Response) -> dict[str, str]:
    """Return the URLs in an index's answer by file name."""
    base = str(response.url)
    if "json" in response.headers.get("content-type", ""):
        files = response.json().get("files", [])
        return {f["filename"]: urljoin(base, f["url"]) for f in files}
    page = _Anchors()
    page.feed(response.text)
    return {
        unquote(urlsplit(link).path).rpartition("/")[2]: urljoin(base, link).partition("#")[0] for link in page.links
    }


def _address(wheel: PinnedWheel, index: str, client: httpx.Client) -> str | None:
    """Return the wheel's URL on an index; None if it isn't there."""
    project = re.sub(r"[-_.]+", "-", wheel.project).lower()
    url = f"{index.rstrip('/')}/{project}/"
    try:
        response = client.get(url, headers={"Accept": _ACCEPT})
    except httpx.TransportError as error:
        raise unreachable(url, error, wheel.filename) from error
    if response.status_code in (404, 410):
        return None
    if response.status_code >= 400:
        message = f"The package index at {httpx.URL(url).host} answered HTTP {response.status_code} for {project}."
        raise SourceFailed(message)
    try:
        return _links(response).get(wheel.filename)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"The package index at {httpx.URL(url).host} answered for {project} with an invalid index page."
        raise SourceFailed(message) from None


def _context(certificates: str | None) -> ssl.SSLContext | bool:
    if certificates is None:
        return True
    try:
        return ssl.create_default_context(cafile=certificates)
    except (OSError, ssl.SSLError) as error:
        message = f"The certificates in {certificates} (PIP_CERT or SSL_CERT_FILE) can't be read: {error}."
        raise SourceFailed(message) from error


def _copy_local(wheel: PinnedWheel, folders: Sequence[Path], target: Path) -> bool:
    """Copy the wheel from one of pip's local directories; return whether one has it with the expected hash."""
    for folder in folders:
        here = folder / wheel.filename
        if here.is_file() and here.stat().st_size == wheel.size:
            with here.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256
            if right:
                shutil.copyfile(here, target)
                return True
    return False


def fetch_wheel(wheel: PinnedWheel, cache: Cache, meter: Meter, settings: IndexSettings | None = None) -> Path:
    """Fetch the wheel, resuming a partial download, and return its path. The caller deletes the file after use.

    Raises
    ------
    SourceFailed
        No index has it, an index doesn't answer, or the file has the wrong size or hash.
    """
    settings = settings or IndexSettings.from_environment()
    partial = cache.partial(wheel.sha256)
    if _copy_local(wheel, settings.find_links, partial):
        return partial
    with new_client(_context(settings.certificates)) as client:
        for index in settings.indexes:
            url = _address(wheel, index, client)
            if url is None:
                continue
            try:
                download(Remote(url, wheel.filename, wheel.size, wheel.sha256), partial, meter, client)
            except Refused as refused:
                message = f"{httpx.URL(url).host} answered HTTP {refused.status} for {wheel.filename}."
                raise SourceFailed(message) from refused
            return partial
    hosts = ", ".join(str(httpx.URL(i).host) for i in settings.indexes)
    message = f"{wheel.filename} is not on the package index that is set up here ({hosts}). Ask those who run it to mirror {wheel.project}."
    raise SourceFailed(message)
