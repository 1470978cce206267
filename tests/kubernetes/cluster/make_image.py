#!/usr/bin/env python3
"""Write a one-layer OCI image as a tar that `ctr images import` reads; standard library only.

    make_image.py REF OUT.tar [--rootfs DIR|TAR] [--file SRC:DST ...] [--entrypoint WORD ...] [--cmd WORD ...]
                  [--env NAME=VALUE ...] [--user USER] [--workdir DIR]

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# what a Containerfile's last step would remove, and what the runtime mounts over
LEFT_OUT = (
    "./proc/",
    "./sys/",
    "./dev/",
    "./var/cache/apt/",
    "./var/lib/apt/lists/",
    "./usr/share/doc/",
    "./usr/share/man/",
    "./usr/share/locale/",
)


def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The file, or None where the image does without it."""
    return None if member.name.startswith(LEFT_OUT) else member


def write_layer(path: Path, rootfs: str | None, files: list[str]) -> None:
    """The image's files as a tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        if rootfs and Path(rootfs).is_dir():
            layer.add(rootfs, arcname=".", filter=kept)
        elif rootfs:
            with tarfile.open(rootfs) as source:
                for member in source:
                    layer.addfile(member, source.extractfile(member) if member.isreg() else None)
        for words in files:
            source_path, target = words.split(":")
            layer.add(Path(source_path).resolve(), arcname=target.lstrip("/"))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoded(data: object) -> tuple[bytes, str]:
    """JSON, and its digest."""
    raw = json.dumps(data).encode()
    return raw, hashlib.sha256(raw).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rootfs")
    for name in ("--file", "--entrypoint", "--cmd", "--env"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="/")
    asked = parser.parse_args()

    layer = asked.out.with_name(asked.out.name + ".layer")
    write_layer(layer, asked.rootfs, asked.file)
    layer_digest = file_digest(layer)
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    config, config_digest = encoded(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": [PATH, *asked.env],
                "Entrypoint": asked.entrypoint or None,
                "Cmd": asked.cmd or None,
                "User": asked.user,
                "WorkingDir": asked.workdir,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "make_image.py"}],
        }
    )
    media = "application/vnd.oci.image"
    manifest, manifest_digest = encoded(
        {
            "schemaVersion": 2,
            "mediaType": f"{media}.manifest.v1+json",
            "config": {
                "mediaType": f"{media}.config.v1+json",
                "digest": f"sha256:{config_digest}",
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": f"{media}.layer.v1.tar",
                    "digest": f"sha256:{layer_digest}",
                    "size": layer.stat().st_size,
                }
            ],
        }
    )
    described = {
        "mediaType": f"{media}.manifest.v1+json",
        "digest": f"sha256:{manifest_digest}",
        "size": len(manifest),
        "annotations": {
            "io.containerd.image.name": asked.ref,
            "org.opencontainers.image.ref.name": asked.ref.rsplit(":", 1)[-1],
        },
        "platform": {"architecture": architecture, "os": "linux"},
    }
    index, _ = encoded({"schemaVersion": 2, "mediaType": f"{media}.index.v1+json", "manifests": [described]})
    with tarfile.open(asked.out, "w") as image:
        for name, raw in (
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", index),
            (f"blobs/sha256/{manifest_digest}", manifest),
            (f"blobs/sha256/{config_digest}", config),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            image.addfile(member, io.BytesIO(raw))
        image.add(layer, arcname=f"blobs/sha256/{layer_digest}")
    layer.unlink()
    print(f"{asked.ref} {asked.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
