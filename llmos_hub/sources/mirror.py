"""A mirror of models, for clusters that have no internet or must not use it.

Its URL is in ``LLMOS_MODELS_MIRROR``. It is asked before the source of a URI. Any web server can serve it:

```
MIRROR/uris/KEY.json     the model of a URI; KEY is derived from the URI
MIRROR/blobs/SHA256      the files, by hash
```

`llmos bundle` writes such a directory, with the revisions at that time; `llmos-hub mirror` is a web server for it.
Files are checked against their hashes, so that the mirror only decides to which revision a URI refers.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import httpx

from llmos.errors import SourceFailed, UsageError
from llmos.files import replace_file
from llmos_hub.failures import reason
from llmos_hub.sources.base import ModelFiles, Reporter
from llmos_hub.sources.cache import Cache, hash_of
from llmos_hub.sources.download import Meter, Remote, RequestRefused, download, new_client
from llmos_hub.sources.gguf_files import parts_of
from llmos_hub.sources.gguf_header import read_header

__all__ = ["Mirror", "MirrorEntry", "MirroredFile", "add_to_mirror"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_ENTRY: Final = 2**20
"""Maximum size of an entry in bytes: one with a thousand files is smaller."""


@dataclass(frozen=True, slots=True)
class MirroredFile:
    """A file of a model: its name for engines, and its hash and size."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class MirrorEntry:
    """The mirror's entry for a URI.

    Attributes
    ----------
    model
        The model as the source returned it, except that its path is only the name of a file in `files`.
    files
        All its files; first the one that an engine is given.
    """

    model: ModelFiles
    files: tuple[MirroredFile, ...]

    @staticmethod
    def path(uri: str) -> str:
        """Return the path of a URI's entry in the mirror."""
        return f"uris/{hashlib.sha256(uri.encode()).hexdigest()[:32]}.json"

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(file.size for file in self.files)

    def dump(self) -> dict[str, Any]:
        """Return the data as for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, data: Any) -> Self:
        """Return the object from data of `dump`.

        Raises
        ------
        ValueError
            It is not a valid entry. Names and hashes are checked strictly, since they become parts of paths.
        """
        try:
            model = ModelFiles.load(data["model"])
            files = tuple(MirroredFile(f["name"], f["sha256"], f["size"]) for f in data["files"])
            sound = files and all(_is_sound(file) for file in files)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        if not sound:
            raise ValueError("a file's name, hash or size can't be right")
        return cls(model, files)


def _is_sound(file: MirroredFile) -> bool:
    name = file.name
    plain = 0 < len(name) <= 255 and name == Path(name).name and not name.startswith(".")
    return plain and _SHA256.fullmatch(file.sha256) is not None and isinstance(file.size, int) and file.size >= 0


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror on a web server.

    Attributes
    ----------
    url
        The URL of the directory.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the mirror at the URL in ``LLMOS_MODELS_MIRROR``.

        Raises
        ------
        UsageError
            It is not a URL.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f'LLMOS_MODELS_MIRROR: "{url[:80]}" is not an address. Give one such as http://mirror/models'
            )
        return cls(url.rstrip("/"))

    @property
    def host(self) -> str:
        """The host, for messages: the URL may contain a password."""
        return httpx.URL(self.url).host

    def fetch(self, uri: str, directory: Path, report: Reporter) -> ModelFiles | None:
        """Fetch the mirror's version of a model into the cache `directory`; return None if the mirror doesn't have it.

        If the mirror doesn't answer, files that were fetched before under the same URI are used.

        Raises
        ------
        SourceFailed
            The mirror has the model, but fetching it failed, or the mirror doesn't answer.
        """
        cache = Cache(directory)
        with new_client() as client:
            try:
                entry = self._look_up(uri, client)
            except SourceFailed:
                if known := cache.recorded(uri):
                    return replace(known, note=f"{self.host} can't be reached; this was fetched before")
                raise
            if entry is None:
                return None
            if (known := cache.recorded(uri)) and known.revision == entry.model.revision:
                return known
            with cache.exclusively(uri, report) as tell:
                known = cache.recorded(uri)  # perhaps fetched by the process that had the lock
                if known and known.revision == entry.model.revision:
                    return known
                return cache.record(self._fetch_files(uri, entry, cache, tell, client))

    def _look_up(self, uri: str, client: httpx.Client) -> MirrorEntry | None:
        where = f"The mirror of models at {self.host}"
        try:
            response = client.get(f"{self.url}/{MirrorEntry.path(uri)}")
        except httpx.TransportError as error:
            raise SourceFailed(f"{where} can't be reached ({reason(error)}).") from error
        if response.status_code in (404, 410):
            return None
        if response.status_code != 200 or len(response.content) > _LARGEST_ENTRY:
            raise SourceFailed(f"{where} answered HTTP {response.status_code} for {uri}.")
        try:
            entry = MirrorEntry.load(response.json())
        except ValueError as error:
            raise SourceFailed(f"{where} answered for {uri} with an invalid entry.") from error
        return entry if entry.model.uri == uri else None

    def _fetch_files(
        self, uri: str, entry: MirrorEntry, cache: Cache, report: Reporter, client: httpx.Client
    ) -> ModelFiles:
        missing = sum(file.size for file in entry.files if not cache.blob(file.sha256).exists())
        cache.check_space(missing, uri)
        before = 0
        for file in entry.files:
            # another URI may have the same file
            with cache.exclusively(file.sha256, report, title=file.name) as tell:
                self._fetch_file(file, cache, Meter(tell, file.name, entry.size, before=before), client)
            before += file.size
        paths = cache.name([(file.name, file.sha256) for file in entry.files])
        note = entry.model.note or f"from the mirror at {self.host}"
        # Not the header in the entry: memory is estimated from it, so it must be the file's own.
        header = read_header(*paths) if entry.model.format == "gguf" else entry.model.header
        return replace(entry.model, path=str(paths[0]), size=entry.size, header=header, note=note)

    def _fetch_file(self, file: MirroredFile, cache: Cache, meter: Meter, client: httpx.Client) -> None:
        if cache.blob(file.sha256).exists():
            return
        partial = cache.partial(file.sha256)
        remote = Remote(f"{self.url}/blobs/{file.sha256}", file.name, file.size, file.sha256)
        try:
            digest = download(remote, partial, meter, client)
        except RequestRefused as refused:
            raise SourceFailed(
                f"The mirror of models at {self.host} answered HTTP {refused.status} for {file.name}, which it should have."
            ) from refused
        cache.publish(partial, digest)


def add_to_mirror(model: ModelFiles, directory: Path) -> MirrorEntry:
    """Add a model to the mirror in `directory`, which may be the cache that the model was fetched into.

    Parameters
    ----------
    model
        The fetched model. Files in the cache under `directory` are used in place, others are copied.
    directory
        The mirror's directory.

    Raises
    ------
    OSError
        A file can't be read or written.
    """
    blobs = directory / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    files = tuple(_store(path, blobs) for path in parts_of(Path(model.path)))
    entry = MirrorEntry(replace(model, path=files[0].name), files)
    target = directory / MirrorEntry.path(model.uri)
    target.parent.mkdir(exist_ok=True)
    replace_file(target, json.dumps(entry.dump(), indent=1, sort_keys=True) + "\n")
    return entry


def _store(path: Path, blobs: Path) -> MirroredFile:
    """Copy the file to the blobs unless it is there."""
    real = path.resolve()
    if real.parent == blobs.resolve() and _SHA256.fullmatch(real.name):
        return MirroredFile(path.name, real.name, real.stat().st_size)
    digest = hash_of(real)
    target = blobs / digest
    if not target.exists():
        partial = blobs / f".{digest}.part"
        shutil.copyfile(real, partial)
        partial.replace(target)
    return MirroredFile(path.name, digest, real.stat().st_size)
