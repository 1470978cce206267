"""Building of the ModelService that ``serve`` submits. Does no I/O."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic.alias_generators import to_camel

from llmos.errors import Invalid
from llmos.resources import ModelService

__all__ = [
    "Submitted",
    "changed_fields",
    "derive_name",
    "kept_fields",
    "make_change",
    "make_modelservice",
    "make_patch",
]

_SHOWN = 80
"""Maximum number of characters shown of a value."""
_RESOURCES = ("cpu", "memory", "gpus", "gpu_type", "gpuType")
"""Fields of ``spec.resources`` that may also be given as fields of the spec."""


def derive_name(model: str) -> str:
    """Return a service's name derived from its model's address.

    >>> derive_name("hf://Qwen/Qwen3-4B-GGUF"), derive_name("demo://tiny"), derive_name("file:///m/Phi_4.Q4_K_M.gguf")
    ('qwen3-4b', 'tiny', 'phi-4-q4-k-m')

    Raises
    ------
    Invalid
        The address has no part that a name can be made from.
    """
    scheme, colon, rest = model.partition("://")
    rest = rest if colon else model
    if scheme == "hf":
        rest = rest.partition(":")[0].partition("@")[0]
    last = PurePosixPath(rest).name
    last = re.sub(r"[-_.]?gguf$", "", last, flags=re.IGNORECASE)
    bare = "".join(each for each in unicodedata.normalize("NFKD", last.lower()) if not unicodedata.combining(each))
    name = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")[:63].strip("-")
    if not name:
        raise Invalid(f'No name can be made from "{model[:120]}". Give one, as in: --name chat')
    return name


def make_modelservice(
    model: str | None,
    name: str | None,
    namespace: str | None,
    labels: Mapping[str, str] | None,
    spec: Mapping[str, Any],
) -> ModelService:
    """Return the ModelService that `AsyncClient.serve` applies.

    Parameters
    ----------
    model
        Address of the model; None for engine ``custom``.
    name, namespace, labels
        Metadata of the service; the name is by default derived from `model`.
    spec
        Further fields of the spec, in snake_case or camelCase; ``cpu``, ``memory``, ``gpus`` and ``gpu_type``
        are fields of ``spec.resources``.

    Raises
    ------
    Invalid
        The spec is invalid; the error has the path of each invalid field.
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
    """Return the fields of a spec as the API names them, without those that are None.

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
    """A service before and after a change.

    Attributes
    ----------
    before
        None if no service of that name existed.
    service
        The service as stored or, for a dry run, as it would be stored.
    """

    before: ModelService | None
    service: ModelService


def make_change(before: ModelService, wanted: ModelService, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that changes an existing service to the given fields, and starts it again if it was stopped.

    Parameters
    ----------
    before
        The existing service.
    wanted
        The result of `make_modelservice` for the same `spec`.
    spec
        The given fields; all others stay as they are.
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


def changed_fields(before: ModelService, after: ModelService) -> list[str]:
    """Return the changed fields, one line each: ``replicas 1 → 2``."""
    old, new = dict(_fields(before)), dict(_fields(after))
    told = []
    for name in old.keys() | new.keys():
        was, now = old.get(name), new.get(name)
        if was != now:
            shown = f"{_shown(was)} → {_shown(now)}"
            told.append(name if isinstance(was or now, dict) else f"{name} {shown}")
    return sorted(told)


def kept_fields(before: ModelService, after: ModelService) -> list[str]:
    """Return the fields that were set before and are unchanged: ``memory 4Gi``."""
    plain = dict(_fields(ModelService.parse({**before.dump(), "spec": {"model": "demo://tiny"}})))
    old, new = dict(_fields(before)), dict(_fields(after))
    return sorted(
        name if isinstance(value, dict) else f"{name} {_shown(value)}"
        for name, value in old.items()
        if name != "model" and value == new.get(name) and value != plain.get(name)
    )


def _fields(service: ModelService) -> Iterator[tuple[str, Any]]:
    """Yield the fields of the spec and of ``spec.resources``, named as for ``serve``."""
    spec = service.spec.model_dump(mode="json", by_alias=True)
    resources = spec.pop("resources", None) or {}
    yield from {**spec, **resources}.items()


def _shown(value: Any) -> str:
    if value in (None, [], {}, ""):
        return "unset"
    text = shlex.join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
