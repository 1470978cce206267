"""Rendering of the chart with Helm, without a cluster."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = [
    "CHART",
    "HelmRefused",
    "containers",
    "find_helm",
    "merge_values",
    "needs_helm",
    "pod_specs",
    "render",
    "render_notes",
]

CHART = Path(__file__).parents[2] / "helm" / "llmos"
BUILD = Path(__file__).parents[1] / "kubernetes" / "cluster" / "helm.sh"
needs_helm = pytest.mark.timeout(900)
"""Mark of modules that call Helm: the first test of each may have to build it, or wait for another that does."""
KUBERNETES = "1.34.0"


class HelmRefused(Exception):
    """Helm rejected the values; the message is Helm's."""


@functools.cache
def find_helm() -> str:
    """Return the program's path; build it if it isn't installed, and skip the test if neither is possible."""
    cache = Path(os.environ.get("TESTCLUSTER_DIR") or Path.home() / ".cache" / "llmos-testcluster")
    found = shutil.which("helm") or shutil.which("helm", path=str(cache / "bin"))
    if found is None and shutil.which("go") is None:
        pytest.skip(
            "neither helm nor go is installed: install Helm (https://helm.sh/docs/intro/install), or Go "
            "(https://go.dev/dl), from whose modules the tests build Helm once"
        )
    return found or _build()


def _build() -> str:
    done = subprocess.run([BUILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Helm can't be built with go (https://helm.sh/docs/intro/install): {done.stderr}"
    return done.stdout.strip()


def _template(values: dict[str, Any], namespace: str, release: str, *options: str, chart: Path = CHART) -> str:
    command = [find_helm(), "template", release, str(chart), "--namespace", namespace, "--kube-version", KUBERNETES]
    done = subprocess.run(
        [*command, "--values", "-", *options],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise HelmRefused(done.stderr)
    return done.stdout


def render(
    values: dict[str, Any] | None = None, *options: str, namespace: str = "llmos", release: str = "llmos"
) -> list[dict[str, Any]]:
    """Return all objects, hooks included; options are Helm's own: ``--is-upgrade``."""
    text = _template(values or {}, namespace, release, *options)
    # the loader in C: the pure Python loader takes a second for the chart
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [obj for obj in yaml.load_all(text, Loader=loader) if obj]


def render_notes(values: dict[str, Any], *, namespace: str = "llmos") -> str:
    """Return the output of `helm get notes`, by a copy of the chart that has the notes as an object."""
    with tempfile.TemporaryDirectory() as directory:
        chart = Path(directory) / "llmos"
        shutil.copytree(CHART, chart)
        templates = chart / "templates"
        notes = (templates / "NOTES.txt").read_text()
        (templates / "_notes_text.tpl").write_text(f'{{{{- define "test.notes" }}}}{notes}{{{{- end }}}}')
        (templates / "notes.yaml").write_text('notes: {{ include "test.notes" . | toJson }}\n')
        text = _template(values, namespace, "llmos", "--show-only", "templates/notes.yaml", chart=chart)
    return str(yaml.safe_load(text)["notes"])


def merge_values(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values over values like Helm: maps by key, everything else as a whole."""
    merged = dict(copy.deepcopy(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_values(merged[key], value) if both else copy.deepcopy(value)
    return merged


def pod_specs(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield kind/name and pod template of all objects that create pods."""
    for obj in objects:
        name = f"{obj['kind']}/{obj['metadata']['name']}"
        if obj["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, obj["spec"]["template"]
        elif obj["kind"] == "CronJob":
            yield name, obj["spec"]["jobTemplate"]["spec"]["template"]


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
