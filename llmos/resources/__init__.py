"""The API types. `KINDS` is the only registry: everything that exists per kind is made from it."""

from __future__ import annotations

from typing import Any

from llmos.errors import Invalid, NotFound
from llmos.resources.base import API_VERSION, Condition, ObjectMeta, Resource
from llmos.resources.credential import Credential
from llmos.resources.modelservice import ModelService
from llmos.resources.setting import Setting

__all__ = [
    "API_VERSION",
    "KINDS",
    "Condition",
    "Credential",
    "ModelService",
    "ObjectMeta",
    "Resource",
    "Setting",
    "json_schema",
    "kind_named",
    "parse",
]

KINDS: dict[str, type[Resource]] = {cls.kind_name(): cls for cls in (ModelService, Credential, Setting)}


def kind_named(word: str) -> type[Resource]:
    """The kind that a word means: its kind, plural, singular or a short name, in any case.

    Raises
    ------
    NotFound
        No kind is called so; the message names those there are.
    """
    lowered = word.lower()
    for kind, cls in KINDS.items():
        if lowered in (kind.lower(), cls.plural, cls.singular, *cls.short_names):
            return cls
    message = f'There is no kind "{word[:80]}". Kinds: {", ".join(sorted(c.plural for c in KINDS.values()))}.'
    raise NotFound(message)


def parse(data: Any) -> Resource:
    """Validate a manifest of any kind by its ``apiVersion`` and ``kind``.

    Raises
    ------
    Invalid
        With the path of every field at fault.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        message = f"A manifest needs a kind, one of: {', '.join(KINDS)}."
        raise Invalid(message)
    if data.get("apiVersion", API_VERSION) != API_VERSION:
        message = f'apiVersion: "{str(data["apiVersion"])[:80]}" is not known here. Use "{API_VERSION}".'
        raise Invalid(message)
    if data["kind"] not in KINDS:
        message = f'kind: "{data["kind"][:80]}" is not known here. Kinds: {", ".join(KINDS)}.'
        raise Invalid(message)
    return KINDS[data["kind"]].parse(data)


def json_schema(cls: type[Resource]) -> dict[str, Any]:
    """The kind's JSON Schema (2020-12), camelCase, with the descriptions from this code."""
    return cls.model_json_schema(by_alias=True)
