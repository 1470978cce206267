"""Small image archives in the formats of `docker save` (current and old), `podman save` and `ctr images export`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["docker_archive", "layer", "oci_archive", "read_oci"]

_MEDIA = "application/vnd.oci.image"


def layer(**files: str) -> bytes:
    """Return a layer's tar."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        _add(tar, {name: text.encode() for name, text in files.items()})
    return raw.getvalue()


def _add(tar: tarfile.TarFile, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _config(architecture: str, layers: Sequence[bytes]) -> bytes:
    plain = [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in layers]
    ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in plain]
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    return json.dumps(config).encode()


def _put(blobs: dict[str, bytes], data: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = data
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def oci_archive(path: Path, images: Mapping[str, Mapping[str, Sequence[bytes]]], *, indexed: bool = False) -> Path:
    """Write an OCI layout: name to architecture to layers.

    With `indexed` each name is an index of its platforms, with one more manifest that wasn't exported.
    """
    blobs: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries = []
    for name, platforms in images.items():
        found = []
        for architecture, layers in platforms.items():
            manifest = {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                "config": _put(blobs, _config(architecture, layers), "config.v1+json"),
                "layers": [_put(blobs, each, "layer.v1.tar") for each in layers],
            }
            found.append(_put(blobs, json.dumps(manifest).encode(), "manifest.v1+json"))
        notes = {"annotations": {"io.containerd.image.name": name}}
        if indexed:
            absent = {"mediaType": f"{_MEDIA}.manifest.v1+json", "digest": f"sha256:{'0' * 64}", "size": 1}
            index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [*found, absent]}
            found = [_put(blobs, json.dumps(index).encode(), "index.v1+json")]
        entries += [{**each, **notes} for each in found]
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    with tarfile.open(path, "w") as tar:
        _add(tar, blobs)
    return path


def docker_archive(path: Path, images: Mapping[str, Sequence[bytes]], architecture: str = "amd64") -> Path:
    """Write an archive like Docker before version 25: a directory per layer, and links for equal layers."""
    entries, files, links = [], {}, {}
    for name, layers in images.items():
        config = _config(architecture, layers)
        members = []
        for number, each in enumerate(layers):
            member = f"{hashlib.sha256(f'{name}{number}'.encode()).hexdigest()}/layer.tar"
            same = next((other for other, data in files.items() if data == each), None)
            if same:
                links[member] = f"../{same}"
            else:
                files[member] = each
            members.append(member)
        digest = hashlib.sha256(config).hexdigest()
        files[f"{digest}.json"] = config
        entries.append({"Config": f"{digest}.json", "RepoTags": [name], "Layers": members})
    files["manifest.json"] = json.dumps(entries).encode()
    with tarfile.open(path, "w") as tar:
        _add(tar, files)
        for member, target in links.items():
            info = tarfile.TarInfo(member)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def read_oci(path: Path) -> dict[str, list[bytes]]:
    """Return name to layers of an OCI layout, and check all hashes."""
    with tarfile.open(path) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]

    def blob(descriptor: Mapping[str, Any]) -> bytes:
        data = content[f"blobs/sha256/{descriptor['digest'].partition(':')[2]}"]
        assert len(data) == descriptor["size"]
        return data

    found = {}
    for entry in json.loads(content["index.json"])["manifests"]:
        manifest = json.loads(blob(entry))
        assert blob(manifest["config"])
        found[entry["annotations"]["io.containerd.image.name"]] = [blob(each) for each in manifest["layers"]]
    return found
