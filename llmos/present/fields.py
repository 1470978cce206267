"""Fields of resources as text, by the units that their types declare, and phases in colours."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from llmos.present.amounts import age, duration, format_bytes
from llmos.present.text import Tone
from llmos.resources import Resource
from llmos.resources.base import Meaning, Titles, Unit

__all__ = ["cell", "metadata_at", "shown", "tone_of"]

_TONES: Mapping[Meaning, Tone] = {
    "working": "busy",
    "ready": "good",
    "degraded": "bad",
    "failed": "bad",
    "stopped": "dim",
}
_DELETING = "Deleting"
"""Phase of any resource while its deletion is under way."""


def tone_of(kind: type[Resource], phase: str) -> Tone:
    """Return the tone of a phase; none if the kind doesn't have it."""
    if phase == _DELETING:
        return "dim"
    meaning = kind.phases.get(phase)
    return _TONES[meaning] if meaning is not None else ""


def cell(value: Any) -> str:
    """Return a value as text for a table cell."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items())
    return str(value)


def shown(value: Any, metadata: Iterable[Any], now: datetime) -> str:
    """Return a field's value as text.

    Parameters
    ----------
    value
        The value; models in it as JSON.
    metadata
        The metadata of the field, such as its `Unit`.
    now
        The current time, for ages.
    """
    for item in metadata:
        if isinstance(item, Titles) and isinstance(value, str):
            return item.of.get(value, value)
        if isinstance(item, Unit) and value not in (None, "", []):
            return _with_unit(value, item, now)
    return cell(value)


def _with_unit(value: Any, unit: Unit, now: datetime) -> str:
    match unit.name:
        case "bytes" | "file bytes":
            return format_bytes(value, binary=unit.name == "bytes")
        case "count":
            return f"{value:,}"
        case "age":
            return f"{age(value, now)} ago"
        case "wait":
            return f"in {duration((value - now).total_seconds() + 0.5)}"
        case "command":
            return shlex.join(str(word) for word in value)


def metadata_at(kind: type[Resource], path: str) -> Sequence[Any]:
    """Return the metadata of the field at a path such as ``status.readyReplicas``; empty if it isn't a typed field."""
    model: Any = kind
    metadata: Sequence[Any] = ()
    for part in path.split("."):
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        field = next((field for name, field in fields.items() if part in (name, field.alias)), None)
        if field is None:
            return ()
        model, metadata = field.annotation, field.metadata
    return metadata
