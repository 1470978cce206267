"""What ``serve`` asks for: from a model's address and some words to a ModelService. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic.alias_generators import to_camel

from llmos.client.progress import Progress
from llmos.errors import Invalid, ModelNotReady
from llmos.resources import ModelService

__all__ = [
    "Submitted",
    "changes",
    "derive_name",
    "failure",
    "kept",
    "make_change",
    "make_modelservice",
    "make_patch",
    "too_slow",
]

_SHOWN = 80
"""Characters of a value that are shown of it."""
_RESOURCES = ("cpu", "memory", "gpus", "gpu_type", "gpuType")
"""Fields of ``spec.resources`` that may be said without it."""


def derive_name(model: str) -> str:
    """The name of a service that nobody named.

    >>> derive_name("hf://Qwen/Qwen3-4B-GGUF"), derive_name("demo://tiny"), derive_name("file:///m/Phi_4.Q4_K_M.gguf")
    ('qwen3-4b', 'tiny', 'phi-4-q4-k-m')

    Raises
    ------
    Invalid
        Nothing in the address can be a name.
    """
    scheme, colon, rest = model.partition("://")
    rest = rest if colon else model
    if scheme == "hf":
        rest = rest.partition(":")[0].partition("@")[0]
    last = PurePosixPath(rest).name
    last = re.sub(r"[-_.]?gguf$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:63].strip("-")
    if not name:
        message = f'No name can be made from "{model[:120]}". Give one, as in: --name chat'
        raise Invalid(message)
    return name


def make_modelservice(
    model: str | None,
    name: str | None,
    namespace: str | None,
    labels: Mapping[str, str] | None,
    spec: Mapping[str, Any],
) -> ModelService:
    """The ModelService that `AsyncClient.serve` applies.

    Parameters
    ----------
    model
        Its address; None for engine ``custom``.
    name, namespace, labels
        Its metadata; without a name one is derived from `model`.
    spec
        More fields of the spec, in snake_case or camelCase; ``cpu``, ``memory``, ``gpus`` and ``gpu_type``
        stand for themselves in ``spec.resources``.

    Raises
    ------
    Invalid
        With the path of every field at fault.
    """
    if name is None and model is None:
        raise Invalid(
            "Name the model, as in: llmos serve demo://smollm2. A command of your own has none, but a name: --name chat"
        )
    fields = make_patch(spec)
    if model is not None:
        fields["model"] = model
    metadata: dict[str, Any] = {"name": name if name is not None else derive_name(model or "")}
    if namespace is not None:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = dict(labels)
    return ModelService.parse({"kind": "ModelService", "metadata": metadata, "spec": fields})


def make_patch(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a spec as they are on the wire; what is None is left out.

    >>> make_patch({"replicas": 2, "memory": "4Gi", "credential_ref": None})
    {'replicas': 2, 'resources': {'memory': '4Gi'}}
    """
    fields = {to_camel(key): value for key, value in spec.items() if key not in _RESOURCES and value is not None}
    resources = {to_camel(key): spec[key] for key in _RESOURCES if spec.get(key) is not None}
    if resources:
        given = fields.get("resources")
        fields["resources"] = {**(given if isinstance(given, Mapping) else {}), **resources}
    return fields


@dataclass(frozen=True, slots=True)
class Submitted:
    """A service as it was and as it is now.

    Attributes
    ----------
    before
        None where there was none of that name.
    service
        As it is stored, or with a dry run would be.
    """

    before: ModelService | None
    service: ModelService


def make_change(before: ModelService, wanted: ModelService, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What changes of a service that is there: what is named. All else stays, but it is started again if it was stopped.

    Parameters
    ----------
    before
        As it is.
    wanted
        From `make_modelservice`, with the same `spec`.
    spec
        The fields that are named.
    """
    fields = {**make_patch(spec), "model": wanted.spec.model}
    if before.spec.paused:
        fields.setdefault("paused", False)
    if before.spec.replicas == 0:
        fields.setdefault("replicas", 1)
    patch: dict[str, Any] = {"spec": fields}
    if wanted.metadata.labels:
        patch["metadata"] = {"labels": dict(wanted.metadata.labels)}
    return patch


def changes(before: ModelService, after: ModelService) -> list[str]:
    """What is another now, a line each: ``replicas 1 → 2``."""
    old, new = dict(_fields(before)), dict(_fields(after))
    told = []
    for name in old.keys() | new.keys():
        was, now = old.get(name), new.get(name)
        if was != now:
            shown = f"{_shown(was)} → {_shown(now)}"
            told.append(name if isinstance(was or now, dict) else f"{name} {shown}")
    return sorted(told)


def kept(before: ModelService, after: ModelService) -> list[str]:
    """What was set before and still is: ``memory 4Gi``."""
    plain = dict(_fields(ModelService.parse({**before.dump(), "spec": {"model": "demo://tiny"}})))
    old, new = dict(_fields(before)), dict(_fields(after))
    return sorted(
        name if isinstance(value, dict) else f"{name} {_shown(value)}"
        for name, value in old.items()
        if name != "model" and value == new.get(name) and value != plain.get(name)
    )


def _fields(service: ModelService) -> Iterator[tuple[str, Any]]:
    """The fields of the spec as ``serve`` names them: those of the resources among them."""
    spec = service.spec.model_dump(mode="json", by_alias=True)
    resources = spec.pop("resources", None) or {}
    yield from {**spec, **resources}.items()


def _shown(value: Any) -> str:
    if value in (None, [], {}, ""):
        return "unset"
    text = shlex.join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def failure(progress: Progress) -> ModelNotReady:
    """The error of waiting for a service that won't become ready by itself."""
    name = progress.name
    if progress.phase == "Paused":
        return ModelNotReady(f"{name} is paused. Start it with: llmos start {name}")
    if progress.phase == "Deleting":
        return ModelNotReady(f"{name} is being deleted.")
    reason = progress.message or "without a reason given"
    if progress.phase == "Degraded":
        return ModelNotReady(f"{name} did not change: {reason.rstrip('.')}. More: llmos describe modelservice {name}")
    return ModelNotReady(f"{name} failed: {reason.rstrip('.')}. More: llmos describe modelservice {name}")


def too_slow(progress: Progress, timeout: float) -> ModelNotReady:
    """The error of having waited long enough."""
    state = f"{progress.phase}: {progress.message}" if progress.message else progress.phase
    return ModelNotReady(
        f"{progress.name} is not ready after {timeout:.0f} s ({state}). It goes on by itself; look with: llmos ps"
    )
