"""Image archives, as ``docker save``, ``podman save``, ``ctr images export`` and OCI builders write them.

The formats are the OCI image layout 1.1 (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) and
Docker's (https://github.com/moby/docker-image-spec), which newer Docker versions write into the same file.
`write_archive` writes both, so that containerd, Docker, Podman and skopeo can read it. Layers are copied unchanged.
No library: skopeo isn't on PyPI, and oras for Python neither reads nor writes archives of images.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from llmos.errors import BadRequest

__all__ = ["TIME", "Image", "make_member", "read_archive", "write_archive"]

_MEDIA: Final = "application/vnd.oci.image"
_INDEXES: Final = frozenset({f"{_MEDIA}.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 2**20
_LARGEST_JSON: Final = 8 * 2**20
TIME: Final = 1767225600
"""Modification time of every member (2026-01-01), so that the same files make the same archive."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob in an archive: its hash, size and position."""

    digest: str
    size: int
    media_type: str
    archive: Path
    member: str


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform.

    Attributes
    ----------
    name
        The name with registry and tag, if the archive has them: ``docker.io/library/llmos-hub:0.1.0``.
    platform
        Operating system and architecture: ``linux/amd64``.
    manifest
        The OCI manifest, unchanged.
    config, layers
        The blobs that the manifest refers to.
    """

    name: str
    platform: str
    manifest: bytes
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def repository(self) -> str:
        """The name without its tag."""
        return self.name.rpartition(":")[0] if ":" in self.name.rpartition("/")[2] else self.name

    @property
    def tag(self) -> str:
        """The tag; ``latest`` if there is none."""
        return self.name.rpartition("/")[2].partition(":")[2] or "latest"


# Reading


def read_archive(path: Path) -> list[Image]:
    """Return the images in an archive that have a name.

    Raises
    ------
    BadRequest
        The file is not an image archive, or it is damaged.
    """
    try:
        with tarfile.open(path, "r:*") as tar:
            names = {member.name.removeprefix("./"): member for member in tar.getmembers()}
            reader = _ArchiveReader(path, tar, names)
            found = list(reader.oci() if "index.json" in names else reader.docker())
    except FileNotFoundError:
        raise BadRequest(f"There is no file {path}.") from None
    except (OSError, EOFError, tarfile.TarError) as error:
        hint = " Unpack it first: zstd -d FILE." if path.suffix == ".zst" else ""
        raise BadRequest(f"{path} can't be read as an image archive: {error}.{hint}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadRequest(f"{path} is not an image archive as written by docker, podman or ctr ({what}).") from error
    if not found:
        raise BadRequest(f"{path} holds no image with a name.")
    return found


class _ArchiveReader:
    """A reader of one open archive."""

    def __init__(self, path: Path, tar: tarfile.TarFile, names: dict[str, tarfile.TarInfo]) -> None:
        self._path = path
        self._tar = tar
        self._names = names

    def _open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._names[name])  # follows links, as for equal layers in older archives
        if file is None:
            raise ValueError(f"{name} is no file")
        return file

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            data = file.read(_LARGEST_JSON + 1)
        if len(data) > _LARGEST_JSON:
            raise ValueError(f"{name} is too large")
        return data

    def _blob(self, descriptor: dict[str, Any]) -> Blob:
        member = _member(descriptor["digest"])
        if member not in self._names:
            raise ValueError(f"{member} is missing")
        return Blob(descriptor["digest"], descriptor["size"], descriptor["mediaType"], self._path, member)

    def oci(self) -> Iterator[Image]:
        """Yield the images of an OCI image layout."""
        for descriptor in json.loads(self._read("index.json"))["manifests"]:
            notes = descriptor.get("annotations") or {}
            name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name") or ""
            if name:
                yield from self._images(name, descriptor)

    def _images(self, name: str, descriptor: dict[str, Any]) -> Iterator[Image]:
        member = _member(descriptor["digest"])
        if member not in self._names:
            return  # an index may list platforms that were not exported
        data = self._read(member)
        if hashlib.sha256(data).hexdigest() != member.rpartition("/")[2]:
            raise ValueError(f"{member} is not what its name says: the archive is damaged")
        manifest = json.loads(data)
        if manifest.get("mediaType", descriptor.get("mediaType")) in _INDEXES or "manifests" in manifest:
            for inner in manifest["manifests"]:
                yield from self._images(name, inner)
            return
        if "vnd.docker.reference.type" in (descriptor.get("annotations") or {}):
            return  # an attestation of an image, not an image
        config = self._blob(manifest["config"])
        layers = tuple(self._blob(layer) for layer in manifest["layers"])
        yield Image(name, _platform(json.loads(self._read(config.member))), data, config, layers)

    def docker(self) -> Iterator[Image]:
        """Yield the images of the format that ``docker save`` wrote before it wrote OCI layouts."""
        for entry in json.loads(self._read("manifest.json")):
            data = self._read(entry["Config"])
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            config = Blob(digest, len(data), f"{_MEDIA}.config.v1+json", self._path, entry["Config"])
            layers = tuple(self._layer(member) for member in entry["Layers"])
            manifest = {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                "config": _descriptor(config),
                "layers": [_descriptor(layer) for layer in layers],
            }
            for name in entry.get("RepoTags") or ():
                yield Image(name, _platform(json.loads(data)), _dump(manifest), config, layers)

    def _layer(self, member: str) -> Blob:
        digest, size = hashlib.sha256(), 0
        with self._open(member) as file:
            packed = b""
            while chunk := file.read(_CHUNK):
                packed = packed or chunk[:2]
                digest.update(chunk)
                size += len(chunk)
        kind = "tar+gzip" if packed == _GZIP else "tar"
        return Blob(f"sha256:{digest.hexdigest()}", size, f"{_MEDIA}.layer.v1.{kind}", self._path, member)


def _member(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest[:80]} is no sha256 digest")
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _platform(config: dict[str, Any]) -> str:
    return f"{config['os']}/{config['architecture']}"


# Writing


def _dump(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True).encode()


def _descriptor(blob: Blob) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def write_archive(images: Sequence[Image], out: Path) -> None:
    """Write images of one platform into one archive, with shared layers only once; all of it or nothing.

    Raises
    ------
    BadRequest
        A blob doesn't match its hash.
    """
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [_entry(i) for i in images]}
    docker = [
        {
            "Config": _member(image.config.digest),
            "RepoTags": [image.name.removeprefix("docker.io/library/")],
            "Layers": [_member(layer.digest) for layer in image.layers],
        }
        for image in images
    ]
    small = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _dump(index),
        "manifest.json": _dump(docker),
    }
    small |= {_member(image.digest): image.manifest for image in images}
    blobs = {blob.digest: blob for image in images for blob in (image.config, *image.layers)}
    partial = out.with_name(f"{out.name}.part")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in small.items():
            tar.addfile(make_member(name, len(data)), io.BytesIO(data))
        _copy(blobs.values(), tar)
    partial.replace(out)


def _entry(image: Image) -> dict[str, Any]:
    system, _, architecture = image.platform.partition("/")
    return {
        "mediaType": json.loads(image.manifest).get("mediaType", f"{_MEDIA}.manifest.v1+json"),
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name},
        "platform": {"os": system, "architecture": architecture},
    }


def make_member(name: str, size: int) -> tarfile.TarInfo:
    """Return the header of a file in an archive that is the same whenever and wherever it is written."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, TIME, 0o644
    return info


def _copy(blobs: Iterable[Blob], tar: tarfile.TarFile) -> None:
    sources: dict[Path, tarfile.TarFile] = {}
    with contextlib.ExitStack() as stack:
        for blob in sorted(blobs, key=lambda blob: (str(blob.archive), blob.digest)):
            if blob.archive not in sources:
                sources[blob.archive] = stack.enter_context(tarfile.open(blob.archive, "r:*"))
            source = sources[blob.archive]
            try:
                file = source.extractfile(blob.member)
            except KeyError:
                file = source.extractfile(f"./{blob.member}")
            assert file is not None
            with file:
                checked = _Checked(file)
                tar.addfile(make_member(_member(blob.digest), blob.size), checked)
            if checked.digest != blob.digest:
                raise BadRequest(f"{blob.archive} is damaged: {blob.member} is not what its hash says.")


class _Checked:
    """A readable file that hashes the bytes that are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sha.update(data)
        return data
