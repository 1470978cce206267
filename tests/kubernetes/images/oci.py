"""OCI images from directories: layers out of overlayfs' upper directories, and the archive that ``ctr`` imports.

The formats are those of the OCI image specification 1.1 (image-layout, layer: whiteouts); the kernel's side of a
whiteout is a character device 0:0 (Documentation/filesystems/overlayfs.rst). The same input makes the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Config", "Layer", "write_archive", "write_layer"]

# pages that nobody reads in a pod
_LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/")
_EMPTY = ("proc/", "sys/", "dev/", "run/", "tmp/", "mnt/")


@dataclass(frozen=True)
class Layer:
    """A layer's tar, uncompressed, so that its digest is the diff id too."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True)
class Config:
    """The settings with which a container of the image is started."""

    architecture: str
    environment: Mapping[str, str]
    entrypoint: Sequence[str]
    command: Sequence[str]
    user: str
    directory: str
    created: int


class _Hashing:
    """A file for writing that hashes what passes."""

    def __init__(self, file: Any) -> None:
        self.file, self.sha, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        self.size += len(data)
        self.file.write(data)
        return len(data)


def _walk(root: Path, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(root / below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{below}{entry.name}"
            yield name, entry
            if entry.is_dir(follow_symlinks=False) and not f"{name}/".startswith((*_LEFT_OUT, *_EMPTY)):
                yield from _walk(root, f"{name}/")


def _whiteout(name: str) -> tarfile.TarInfo:
    folder, _, base = name.rpartition("/")
    return tarfile.TarInfo(f"{folder}/.wh.{base}" if folder else f".wh.{base}")


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def write_layer(root: Path, out: Path, epoch: int) -> dict[str, Any]:
    """Write a directory as a layer; no file in it is younger than `epoch`.

    Returns
    -------
    dict
        ``digest`` (``sha256:…``) and ``size`` in bytes.
    """
    with out.open("wb") as raw:
        sink = _Hashing(raw)
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for name, entry in _walk(root):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    tar.addfile(_whiteout(name))
                    continue
                if stat.S_ISSOCK(status.st_mode) or stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    continue
                member = tar.gettarinfo(entry.path, arcname=name)
                member.uname = member.gname = ""
                member.mtime = min(int(status.st_mtime), epoch)
                if member.isreg():
                    with Path(entry.path).open("rb") as file:
                        tar.addfile(member, file)
                else:
                    tar.addfile(member)
                if member.isdir() and _opaque(root / name):
                    tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))
    return {"digest": f"sha256:{sink.sha.hexdigest()}", "size": sink.size}


def _blob(data: bytes) -> tuple[str, bytes]:
    return hashlib.sha256(data).hexdigest(), data


def write_archive(
    reference: str, out: Path, layers: Sequence[Layer], config: Config, *, leave_out: Container[str] = ()
) -> None:
    """Write an image as an OCI layout in a tar, all of it or nothing; without the layers in `leave_out`, by digest."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(config.created))
    runs = {
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "User": config.user,
        "WorkingDir": config.directory,
    }
    image = {
        "created": created,
        "architecture": config.architecture,
        "os": "linux",
        "config": runs,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": created, "created_by": "images/install.sh"} for _ in layers],
    }
    config_digest, config_data = _blob(json.dumps(image, sort_keys=True).encode())
    media = "application/vnd.oci.image"
    descriptors = [
        {"mediaType": f"{media}.layer.v1.tar", "digest": layer.digest, "size": layer.size} for layer in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{media}.manifest.v1+json",
        "config": {
            "mediaType": f"{media}.config.v1+json",
            "digest": f"sha256:{config_digest}",
            "size": len(config_data),
        },
        "layers": descriptors,
    }
    manifest_digest, manifest_data = _blob(json.dumps(manifest, sort_keys=True).encode())
    entry = {
        "mediaType": f"{media}.manifest.v1+json",
        "digest": f"sha256:{manifest_digest}",
        "size": len(manifest_data),
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rsplit(":", 1)[-1],
        },
        "platform": {"architecture": config.architecture, "os": "linux"},
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}, sort_keys=True).encode()
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": index,
        f"blobs/sha256/{manifest_digest}": manifest_data,
        f"blobs/sha256/{config_digest}": config_data,
    }
    partial = out.with_suffix(".part")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), config.created
            tar.addfile(member, io.BytesIO(data))
        for layer in layers:
            if layer.digest in leave_out:
                continue
            member = tarfile.TarInfo(f"blobs/sha256/{layer.digest.removeprefix('sha256:')}")
            member.size, member.mtime = layer.size, config.created
            with layer.path.open("rb") as file:
                tar.addfile(member, file)
    partial.replace(out)
