"""The chart in a bundle: the images it refers to, and the archive for ``helm install``."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from llmos.errors import BadRequest
from llmos_hub.bundle.archives import TIME, make_member

__all__ = ["Chart", "ImageName", "default_chart", "merged"]


@dataclass(frozen=True, slots=True)
class ImageName:
    """A reference to an image in the chart.

    Attributes
    ----------
    key
        Its key in the values: ``hub`` for ``images.hub``.
    """

    key: str
    registry: str
    repository: str
    tag: str

    @property
    def short(self) -> str:
        """The name as in a pod's spec."""
        return f"{self.registry}/{self.repository}:{self.tag}" if self.registry else f"{self.repository}:{self.tag}"

    @property
    def full(self) -> str:
        """The name as in container runtimes, where a name without a registry is one of Docker Hub."""
        first, slash, _ = self.short.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            return self.short
        return f"docker.io/{self.short}" if slash else f"docker.io/library/{self.short}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, as its files by relative path."""

    files: Mapping[str, bytes]

    @classmethod
    def load(cls, path: Path) -> Chart:
        """Read a chart's directory, or its archive.

        Raises
        ------
        BadRequest
            It is not a chart.
        """
        try:
            files = _from_directory(path) if path.is_dir() else _from_archive(path)
            chart = cls(files)
            assert chart.name
            assert chart.version
        except (OSError, tarfile.TarError, yaml.YAMLError, KeyError, AssertionError) as error:
            raise BadRequest(f"{path} is not a Helm chart ({type(error).__name__}: {error}).") from error
        return chart

    def _yaml(self, name: str) -> dict[str, Any]:
        data = yaml.safe_load(self.files[name])
        return data if isinstance(data, dict) else {}

    @property
    def name(self) -> str:
        """The chart's name, ``llmos``."""
        return str(self._yaml("Chart.yaml")["name"])

    @property
    def version(self) -> str:
        """The chart's own version."""
        return str(self._yaml("Chart.yaml")["version"])

    @property
    def app_version(self) -> str:
        """The version of the application, which is the default tag of images."""
        return str(self._yaml("Chart.yaml").get("appVersion") or self.version)

    def images(self, values: Mapping[str, Any]) -> list[ImageName]:
        """Return the images for these values: all below ``images`` that have a repository.

        Raises
        ------
        BadRequest
            An image has a digest: container engines import images by their tags.
        """
        images = merged(self._yaml("values.yaml"), values).get("images") or {}
        registry = str(images.get("registry") or "").rstrip("/")
        tag = images.get("tag") or self.app_version
        for key, image in images.items():
            if isinstance(image, dict) and image.get("digest"):
                raise BadRequest(
                    f"images.{key}.digest is set: images out of a bundle are known by their tags alone. Leave it out; the "
                    "bundle's own hashes say that they are the right ones."
                )
        return [
            ImageName(key, registry, str(image["repository"]), str(image.get("tag") or tag))
            for key, image in images.items()
            if isinstance(image, dict) and image.get("repository")
        ]

    def archive(self) -> bytes:
        """Return the chart's archive, as ``helm package`` would write it; the same files make the same bytes."""
        raw = io.BytesIO()
        with (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=TIME) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            # Helm expects Chart.yaml first
            for name in sorted(self.files, key=lambda name: (name != "Chart.yaml", name)):
                content = self.files[name]
                tar.addfile(make_member(f"{self.name}/{name}", len(content)), io.BytesIO(content))
        return raw.getvalue()


def _from_directory(path: Path) -> dict[str, bytes]:
    ignored = [".helmignore"]
    if (path / ".helmignore").is_file():
        lines = (path / ".helmignore").read_text(encoding="utf-8").splitlines()
        ignored += [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    files = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(fnmatch(part, pattern) for part in relative.parts for pattern in ignored):
            files[relative.as_posix()] = file.read_bytes()
    return files


def _from_archive(path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                files[PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()] = file.read()
    return files


def default_chart() -> Path | None:
    """Return the path of the chart in the checkout from which this runs; None if it isn't a checkout."""
    path = Path(__file__).parents[2] / "helm" / "llmos"
    return path if (path / "Chart.yaml").is_file() else None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return values merged as Helm does; those in `over` take precedence."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return result
