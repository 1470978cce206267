"""The API types. `KINDS` lists all kinds; routes, CLI verbs, SDK collections and schemas are made from it."""

from __future__ import annotations

from typing import Any

from llmos.errors import Invalid, NotFound
from llmos.resources.base import API_VERSION, Condition, ObjectMeta, Resource
from llmos.resources.credential import Credential
from llmos.resources.modelservice import ModelService
from llmos.resources.setting import Setting
from llmos.resources.snapshot import Snapshot
from llmos.resources.volume import Volume

__all__ = [
    "API_VERSION",
    "KINDS",
    "MAIN_KIND",
    "Condition",
    "Credential",
    "ModelService",
    "ObjectMeta",
    "Resource",
    "Setting",
    "Snapshot",
    "Volume",
    "json_schema",
    "kind_named",
    "parse",
]

KINDS: dict[str, type[Resource]] = {
    cls.kind_name(): cls for cls in (ModelService, Volume, Snapshot, Credential, Setting)
}
MAIN_KIND: type[Resource] = ModelService
"""The kind of a name that is given without one, as in ``llmos logs chat``."""


def kind_named(word: str) -> type[Resource]:
    """Return the kind that a word names: its kind, plural, singular or a short name, in any case.

    Raises
    ------
    NotFound
        The kind is unknown; the message lists the known kinds.
    """
    lowered = word.lower()
    for kind, cls in KINDS.items():
        if lowered in (kind.lower(), cls.plural, cls.singular, *cls.short_names):
            return cls
    raise NotFound(f'There is no kind "{word[:80]}". Kinds: {", ".join(sorted(c.plural for c in KINDS.values()))}.')


def parse(data: Any) -> Resource:
    """Validate a manifest of any kind and return it, using its ``apiVersion`` and ``kind``.

    Raises
    ------
    Invalid
        The manifest is invalid; the error has the path of each invalid field.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise Invalid(f"A manifest needs a kind, one of: {', '.join(KINDS)}.")
    if data.get("apiVersion", API_VERSION) != API_VERSION:
        raise Invalid(f'apiVersion: "{str(data["apiVersion"])[:80]}" is not known here. Use "{API_VERSION}".')
    if data["kind"] not in KINDS:
        raise Invalid(f'kind: "{data["kind"][:80]}" is not known here. Kinds: {", ".join(KINDS)}.')
    return KINDS[data["kind"]].parse(data)


def json_schema(cls: type[Resource]) -> dict[str, Any]:
    """Return the kind's JSON Schema (2020-12), in camelCase, with descriptions from the docstrings."""
    return cls.model_json_schema(by_alias=True)
