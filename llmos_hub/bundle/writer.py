"""The writer of bundles: images, chart, models and an installation script.

```
DIR/README.md install.sh values.yaml manifest.json SHA256SUMS
DIR/chart/llmos-VERSION.tgz
DIR/images/linux-amd64.tar …   all images of a platform, and push.py
DIR/models/{uris,blobs}        a mirror of models (`llmos_hub.sources.mirror`)
DIR/extra/                     additional files
```

Its content doesn't depend on when and where it was written: the same input makes the same bytes. The layout is this
project's own, so no library writes it; the archives in it follow the specifications in `llmos_hub.bundle.archives`.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

import llmos
from llmos.errors import BadRequest
from llmos_hub.bundle.archives import Image, read_archive, write_archive
from llmos_hub.bundle.chart import Chart, ImageName, merged
from llmos_hub.bundle.engines import export
from llmos_hub.sources.base import FetchProgress
from llmos_hub.sources.cache import hash_of
from llmos_hub.sources.fetch import fetch_model
from llmos_hub.sources.mirror import MirrorEntry, add_to_mirror

__all__ = ["BundleSpec", "ConsoleReporter", "write_bundle"]

_GIB: Final = 2**30
_USUAL_GIB: Final = 50
"""The default size of the mirror's volume in the chart."""
_OF_THE_CACHE: Final = ("refs", "models", "locks", "partial")
"""Directories that fetching leaves in addition to the files themselves."""


class ConsoleReporter:
    """A reporter that writes progress to the console, with a line for each finished step."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def done(self, step: str, text: str) -> None:
        """Show that a step is finished."""
        now = time.monotonic()
        sys.stdout.write(f"{step:<9} {text:<72} {now - self._since:4.0f} s\n")
        sys.stdout.flush()
        self._since = now

    def note(self, text: str) -> None:
        """Show progress within a step on a terminal; the next note replaces it."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text[:100]}\r")
            sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """The desired contents of a bundle.

    Attributes
    ----------
    directory
        The directory to write to.
    chart, values
        The chart, and the site's values for it.
    platforms
        The platforms of the cluster's machines: ``linux/amd64``.
    archives
        Archives with images.
    engine
        The container engine that has the images which are in none of the archives.
    without
        Keys of images to leave out, such as ``notebook`` for ``images.notebook``.
    models, models_only
        URIs of models, and whether only models are written.
    extra
        Paths of additional files.
    """

    directory: Path
    chart: Chart
    values: Mapping[str, Any]
    platforms: tuple[str, ...]
    archives: tuple[Path, ...] = ()
    engine: str = ""
    without: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    models_only: bool = False
    extra: tuple[Path, ...] = ()


def write_bundle(spec: BundleSpec, reporter: ConsoleReporter) -> int:
    """Write a bundle, and return its size in bytes.

    Raises
    ------
    BadRequest
        An image is missing, or an archive is invalid.
    SourceFailed
        A model can't be fetched.
    OSError
        A file can't be read or written.
    """
    directory = spec.directory
    directory.mkdir(parents=True, exist_ok=True)
    # the checksums mark a complete bundle: they are removed first and written last
    (directory / "SHA256SUMS").unlink(missing_ok=True)
    for folder in ("chart", "images"):
        shutil.rmtree(directory / folder, ignore_errors=True)
    images: list[dict[str, Any]] = []
    if not spec.models_only:
        (directory / "chart").mkdir()
        (directory / "chart" / f"{spec.chart.name}-{spec.chart.version}.tgz").write_bytes(spec.chart.archive())
        reporter.done("Chart", f"{spec.chart.name} {spec.chart.version}")
        images = _write_images(spec, reporter)
    entries = _write_models(spec, reporter)
    _write_extra(spec)
    values = _values(spec, images, entries)
    (directory / "values.yaml").write_text(
        f"# What this bundle brings; ./install.sh -f FILE adds values of yours.\n{yaml.safe_dump(values)}"
    )
    manifest = {
        "llmos": llmos.__version__,
        "chart": {"name": spec.chart.name, "version": spec.chart.version},
        "images": images,
        "models": [_of_model(entry) for entry in entries],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    (directory / "README.md").write_text(_readme(spec, images, entries))
    script = directory / "install.sh"
    script.write_text(files("llmos_hub.bundle").joinpath("data/install.sh").read_text(encoding="utf-8"))
    script.chmod(0o755)
    size = _write_sums(directory)
    reporter.done("Checksums", "SHA256SUMS")
    return size


# Images


def _write_images(spec: BundleSpec, reporter: ConsoleReporter) -> list[dict[str, Any]]:
    wanted = spec.chart.images(spec.values)
    if unknown := sorted(spec.without - {name.key for name in wanted}):
        raise BadRequest(f'--without: the chart has no image "{unknown[0]}", only {", ".join(n.key for n in wanted)}.')
    wanted = [name for name in wanted if name.key not in spec.without]
    folder = spec.directory / "images"
    folder.mkdir()
    given = [image for archive in spec.archives for image in read_archive(archive)]
    found = []
    # in the bundle's directory: /tmp may be too small for images
    with tempfile.TemporaryDirectory(prefix=".images-", dir=spec.directory) as scratch:
        for platform in spec.platforms:
            archive = folder / f"{platform.replace('/', '-')}.tar"
            chosen = _choose(spec, wanted, platform, given, Path(scratch))
            write_archive([replace(image, name=name.full) for name, image in chosen], archive)
            found += [_of_image(name, image, archive.name) for name, image in chosen]
            names = ", ".join(f"{name.repository}:{name.tag}" for name, _ in chosen)
            reporter.done("Images", f"{platform}  {archive.stat().st_size / 1e9:.1f} GB  {names}")
    tags = {(image["key"], image["tag"]) for image in found}
    if len(tags) > len({key for key, _ in tags}):
        raise BadRequest("An image has different tags for different platforms. Give those of one version.")
    push = files("llmos_hub.bundle").joinpath("push.py").read_text(encoding="utf-8")
    (folder / "push.py").write_text(push)
    return found


def _choose(
    spec: BundleSpec, wanted: list[ImageName], platform: str, given: list[Image], scratch: Path
) -> list[tuple[ImageName, Image]]:
    """Return the images of the chart for one platform, with the tags that the found images have."""
    found = {name: image for name in wanted if (image := _find(name, platform, given))}
    missing = [name for name in wanted if name not in found]
    if missing and spec.engine:
        archive = scratch / f"{platform.replace('/', '-')}.tar"
        names = [name.full if spec.engine in ("ctr", "k3s") else name.short for name in missing]
        export(spec.engine, names, platform, archive)
        exported = read_archive(archive)
        found |= {name: image for name in missing if (image := _find(name, platform, exported))}
        missing = [name for name in missing if name not in found]
    if missing:
        raise BadRequest(_missing(missing, platform, spec))
    return [(replace(name, tag=image.tag), image) for name, image in found.items()]


def _find(name: ImageName, platform: str, images: list[Image]) -> Image | None:
    """Return the image of that repository in any registry: with the chart's tag, otherwise with its only tag."""
    same = [
        image
        for image in images
        if image.platform == platform and f"/{image.repository}".endswith(f"/{name.repository}")
    ]
    exact = [image for image in same if image.tag == name.tag]
    if exact:
        return exact[0]
    tags = {image.tag for image in same}
    if len(tags) > 1:
        raise BadRequest(
            f"There are several {name.repository} for {platform}: {', '.join(sorted(tags))}. Say which with --values (images.tag)."
        )
    return same[0] if same else None


def _missing(missing: list[ImageName], platform: str, spec: BundleSpec) -> str:
    names = ", ".join(name.short for name in missing)
    if spec.engine:
        return f"{spec.engine} has no {names} for {platform}. Build it there first: images/README.md says how."
    return (
        f"No {names} for {platform} among the given archives. Name archives (--images FILE.tar), or a container engine "
        f"that has it (--from docker), or leave it out (--without {missing[0].key})."
    )


def _of_image(name: ImageName, image: Image, archive: str) -> dict[str, Any]:
    return {
        "key": name.key,
        "name": name.full,
        "repository": name.repository,
        "tag": name.tag,
        "platform": image.platform,
        "digest": image.digest,
        "archive": f"images/{archive}",
    }


# Models


def _write_models(spec: BundleSpec, reporter: ConsoleReporter) -> list[MirrorEntry]:
    folder = spec.directory / "models"
    if not spec.models:
        shutil.rmtree(folder, ignore_errors=True)
        return []
    folder.mkdir(exist_ok=True)

    def report(progress: FetchProgress) -> None:
        total = f" of {progress.total / 1e9:.2f}" if progress.total else ""
        reporter.note(progress.message or f"{progress.file}  {progress.done / 1e9:.2f}{total} GB")

    entries = []
    for uri in spec.models:
        entry = add_to_mirror(fetch_model(uri, folder, report), folder)
        entries.append(entry)
        reporter.done("Model", f"{uri}  {entry.size / 1e6:.1f} MB")
    for name in _OF_THE_CACHE:
        shutil.rmtree(folder / name, ignore_errors=True)
    keep = {MirrorEntry.path(entry.model.uri).rpartition("/")[2] for entry in entries}
    keep |= {file.sha256 for entry in entries for file in entry.files}
    for path in (*(folder / "uris").iterdir(), *(folder / "blobs").iterdir()):
        if path.name not in keep:
            path.unlink()
    return entries


def _of_model(entry: MirrorEntry) -> dict[str, Any]:
    names = [file.name for file in entry.files]
    return {"uri": entry.model.uri, "revision": entry.model.revision, "size": entry.size, "files": names}


# The rest


def _write_extra(spec: BundleSpec) -> None:
    folder = spec.directory / "extra"
    kept = [path for path in spec.extra if path.parent == folder]
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
    for path in spec.extra:
        folder.mkdir(exist_ok=True)
        if path not in kept:
            shutil.copy(path, folder / path.name)


def _values(spec: BundleSpec, images: list[dict[str, Any]], entries: list[MirrorEntry]) -> dict[str, Any]:
    """Return the site's values, with those that this bundle needs."""
    tags = {image["key"]: image["tag"] for image in images}
    own: dict[str, Any] = {"images": {key: {"tag": tag} for key, tag in tags.items()}} if tags else {}
    if len(set(tags.values())) == 1:
        own = {"images": {"tag": next(iter(tags.values()))}}
    if entries:
        held = {file.sha256: file.size for entry in entries for file in entry.files}
        needed = math.ceil(2 * sum(held.values()) / _GIB)  # room for as many models again
        known = (spec.values.get("mirror") or {}).get("storage") or {}
        size = {"size": f"{needed}Gi"} if needed > _USUAL_GIB else {}
        own["mirror"] = {"enabled": True} | ({"storage": {**size, **known}} if size or known else {})
    return merged(spec.values, own)


def _readme(spec: BundleSpec, images: list[dict[str, Any]], entries: list[MirrorEntry]) -> str:
    text = files("llmos_hub.bundle").joinpath("data/README.md").read_text(encoding="utf-8")
    lines = [] if spec.models_only else [f"- chart {spec.chart.name} {spec.chart.version}"]
    lines += [f"- image `{image['repository']}:{image['tag']}` for {image['platform']}" for image in images]
    lines += [
        f"- model `{entry.model.uri}`, {entry.size / 1e6:,.1f} MB, revision {entry.model.revision[:20]}"
        for entry in entries
    ]
    lines += [f"- `extra/{path.name}`" for path in spec.extra]
    serve = "\n".join(f"    %llmos serve {entry.model.uri}" for entry in entries) or "    (there are none)"
    return (
        text.replace("@VERSION@", spec.chart.app_version)
        .replace("@CONTENTS@", "\n".join(lines))
        .replace("@SERVE@", serve)
    )


def _write_sums(directory: Path) -> int:
    """Write the hash of every file, and return the total size in bytes."""
    lines, total = [], 0
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name == "SHA256SUMS":
            continue
        total += path.stat().st_size
        digest = path.name if path.parent.name == "blobs" else hash_of(path)  # those were checked when fetched
        lines.append(f"{digest}  {path.relative_to(directory).as_posix()}\n")
    (directory / "SHA256SUMS").write_text("".join(lines))
    return total
