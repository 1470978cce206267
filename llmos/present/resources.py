"""Resources of any kind as table rows, JSON and YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from llmos.present.amounts import age
from llmos.present.fields import cell, metadata_at, shown, tone_of
from llmos.present.tables import Row, Table
from llmos.present.text import Tone, escape_block
from llmos.resources import API_VERSION, Resource

__all__ = ["as_json", "as_list", "as_yaml", "field_at", "resource_table"]

_TEXT_LIMIT = 60


def field_at(resource: Resource, path: str) -> Any:
    """Return the value at a path such as ``status.readyReplicas``, or None."""
    value: Any = resource.dump()
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def resource_table(
    kind: type[Resource],
    resources: Sequence[Resource],
    *,
    now: datetime,
    namespaces: bool = False,
    wide: bool = False,
    where: str = "",
) -> Table:
    """Return a table with a row per resource, with the columns defined by its kind.

    Parameters
    ----------
    kind, resources
        The resources and their kind.
    now
        The current time, for ages.
    namespaces
        Whether to show a column with the namespaces.
    wide
        Whether to show labels and messages as well, and all texts in full.
    where
        The place that was searched, for the sentence shown if there are no resources.
    """
    extra = [("MESSAGE", "status.message"), ("LABELS", "metadata.labels")] if wide else []
    extra = [(heading, path) for heading, path in extra if heading == "LABELS" or _has_message(kind)]
    headings = ["NAME", *(heading for heading, _ in kind.columns), "AGE", *(heading for heading, _ in extra)]
    rows = []
    for resource in resources:
        texts = [shown(field_at(resource, path), metadata_at(kind, path), now) for _, path in kind.columns]
        if not wide:
            texts = [text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…" for text in texts]
        cells = [resource.metadata.name, *texts, age(resource.metadata.creation_timestamp, now)]
        cells += [cell(field_at(resource, path)) for _, path in extra]
        if namespaces:
            cells.insert(0, resource.metadata.namespace or "-")
        tones: dict[str, Tone] = {"STATE": tone_of(kind, str(field_at(resource, "status.phase")))}
        rows.append(Row(cells, tones))
    if namespaces:
        headings.insert(0, "NAMESPACE")
    place = f" in {where}" if where else ""
    elastic = [heading for heading, _ in (*extra, *kind.columns)]
    return Table(headings, rows, empty=f"There are no {kind.plural}{place}.", elastic=[] if wide else elastic)


def _has_message(kind: type[Resource]) -> bool:
    status = kind.model_fields["status"].annotation
    return "message" in getattr(status, "model_fields", {})


def as_list(resources: Sequence[Resource]) -> dict[str, Any]:
    """Return several resources as one document that ``apply -f`` reads again."""
    return {"apiVersion": API_VERSION, "kind": "List", "items": [resource.document() for resource in resources]}


def as_json(data: Any, *, indent: int | None = 2) -> str:
    """Return data as JSON, indented unless `indent` is None; control characters are escaped, other text is readable."""
    return escape_block(json.dumps(data, indent=indent, ensure_ascii=False))


def as_yaml(data: Any) -> str:
    """Return data as YAML with its keys in their own order."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    return text.rstrip("\n")
