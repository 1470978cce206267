"""The complete description of one resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from llmos.client.messages import Event
from llmos.present.amounts import age, memory_of
from llmos.present.fields import cell, shown, tone_of
from llmos.present.tables import Row, Table
from llmos.present.text import Line, Span, Tone, clean, facts, line, pad, text_width
from llmos.present.views import view_of
from llmos.resources import Resource
from llmos.resources.base import Condition, Unit
from llmos.resources.workload import ReplicaStatus

__all__ = ["describe", "events_table"]

_OWN_SECTIONS = frozenset({"conditions", "replica_statuses", "last_log_lines", "endpoints"})
_NESTED = frozenset({"template"})
"""Fields with a free structure, which is flattened."""
_REPLICA_TONES: Mapping[str, Tone] = {"Ready": "good", "Starting": "busy", "Failed": "bad"}


def words(name: str) -> str:
    """Return a field's name in words.

    >>> words("servedModelName"), words("cpu")
    ('Served model name', 'Cpu')
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return text[:1].upper() + text[1:]


def describe(resource: Resource, events: Sequence[Event], *, now: datetime) -> list[Line]:
    """Return the lines that describe a resource: metadata, spec, status, conditions and events.

    Parameters
    ----------
    resource
        The resource.
    events
        Its events, oldest first.
    now
        The current time, for ages.
    """
    metadata = resource.metadata
    head: list[tuple[str, str, Tone]] = [("Name", metadata.name, "bold"), ("Kind", resource.kind, "")]
    if metadata.namespace:
        head.append(("Namespace", metadata.namespace, ""))
    if metadata.creation_timestamp is not None:
        head.append(("Created", f"{age(metadata.creation_timestamp, now)} ago", ""))
    if metadata.deletion_timestamp is not None:
        head.append(("Deletion asked for", f"{age(metadata.deletion_timestamp, now)} ago", "bad"))
    head += [("Labels", cell(metadata.labels), "")] if metadata.labels else []
    head += [("Annotations", cell(metadata.annotations), "")] if metadata.annotations else []
    lines = _pairs(head, "")
    told = view_of(type(resource)).spec(resource) or {}
    lines += _section("Spec", _pairs(_fields(resource.spec, type(resource), now, told=told), "  "))
    status = _fields(resource.status, type(resource), now, without=_OWN_SECTIONS)
    lines += _section("Status", _pairs(status, "  "))
    conditions = getattr(resource.status, "conditions", ())
    said = getattr(resource.status, "message", "")
    lines += _section("Conditions", _indented(_conditions(conditions, now, said)) if conditions else [])
    replicas = getattr(resource.status, "replica_statuses", ())
    lines += _section("Replicas", _indented(_replicas(replicas, now)) if replicas else [])
    log = getattr(resource.status, "last_log_lines", ())
    lines += _section("Last log lines", [line(Span(f"  │ {clean(text)}", "dim")) for text in log])
    lines += _section("Events", _indented(events_table(events, now=now)))
    return lines


def _fields(
    model: Any,
    kind: type[Resource],
    now: datetime,
    prefix: str = "",
    *,
    without: Iterable[str] = (),
    told: Mapping[str, str] | None = None,
) -> list[tuple[str, str, Tone]]:
    """Return the fields that are set as (label, value, tone), nested ones flattened; `told` replaces some values."""
    pairs: list[tuple[str, str, Tone]] = []
    if not isinstance(model, BaseModel):
        return pairs
    dump = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, field in type(model).model_fields.items():
        key = field.alias or name
        label = f"{prefix} {words(key).lower()}" if prefix else words(key)
        value, plain = getattr(model, name), dump.get(key)
        if name in without or plain in (None, "", [], {}):
            continue
        if isinstance(value, BaseModel):
            pairs += _fields(value, kind, now, label)
            continue
        if isinstance(plain, dict) and name in _NESTED:
            pairs += _flattened(plain, label)
            continue
        tone = tone_of(kind, str(value)) if name == "phase" else ""
        with_unit = any(isinstance(item, Unit) for item in field.metadata)
        text = (told or {}).get(key) or shown(value if with_unit else plain, field.metadata, now)
        pairs.append((label, text, tone))
    return pairs


def _flattened(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, Tone]]:
    for key, value in data.items():
        label = f"{prefix} {words(key).lower()}"
        if isinstance(value, Mapping):
            yield from _flattened(value, label)
        elif value not in (None, "", []):
            yield label, cell(value), ""


def _pairs(pairs: Iterable[tuple[str, str, Tone]], indent: str) -> list[Line]:
    pairs = list(pairs)
    width = max((text_width(label) for label, _, _ in pairs), default=0) + 1
    lines: list[Line] = []
    for label, value, tone in pairs:
        first, *more = facts(value) or [""]
        lines.append(line(indent + pad(f"{label}:", width) + "  ", Span(first, tone)))
        lines += [line(indent + " " * (width + 2), Span(fact, tone)) for fact in more]
    return lines


def _section(title: str, content: list[Line]) -> list[Line]:
    return [(), line(Span(title, "bold")), *content] if content else []


def _indented(table: Table) -> list[Line]:
    return [(Span("  "), *line_) for line_ in table.lines()]


def _conditions(conditions: Sequence[Condition], now: datetime, said: str) -> Table:
    """Return the table of conditions; a message equal to the status's own, `said`, is not repeated."""
    rows = [
        Row(
            [
                c.type,
                {"True": "yes", "False": "no"}.get(c.status, "unknown"),
                age(c.last_transition_time, now),
                c.reason or "-",
                "as above" if said and c.message == said else c.message,
            ]
        )
        for c in conditions
    ]
    return Table(["CONDITION", "HOLDS", "SINCE", "REASON", "MESSAGE"], rows)


def _replicas(replicas: Sequence[ReplicaStatus], now: datetime) -> Table:
    rows = [
        Row(
            [
                r.id,
                r.phase,
                memory_of(r.memory, r.memory_limit),
                str(r.restarts),
                age(r.started_at, now),
                r.message or "-",
            ],
            {"STATE": _REPLICA_TONES.get(r.phase, "")},
        )
        for r in replicas
    ]
    return Table(["REPLICA", "STATE", "MEMORY", "RESTARTS", "AGE", "MESSAGE"], rows)


def events_table(events: Sequence[Event], *, now: datetime) -> Table:
    """Return the table of events, newest last."""
    rows = []
    for event in events:
        times = f" ({event.count} times in {age(event.first, now)})" if event.count > 1 else ""
        tones: dict[str, Tone] = {"TYPE": "bad" if event.type == "Warning" else ""}
        rows.append(Row([age(event.last, now), event.type, event.reason, event.message + times], tones))
    return Table(["AGE", "TYPE", "REASON", "MESSAGE"], rows, empty="Nothing has happened yet.", elastic=("MESSAGE",))
