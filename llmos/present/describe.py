"""The complete description of one resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from llmos.client.messages import Event
from llmos.present.amounts import age, count, duration, format_bytes, memory_of
from llmos.present.modelservices import ENGINES, TONES
from llmos.present.resources import cell
from llmos.present.tables import Row, Table
from llmos.present.text import Line, Span, Tone, clean, facts, line, pad, text_width
from llmos.resources import ModelService, Resource
from llmos.resources.base import Condition

__all__ = ["describe", "events_table"]

_OWN_SECTIONS = frozenset({"conditions", "replicaStatuses", "lastLogLines", "endpoints"})
_BYTES = frozenset({"memoryEstimate", "fileSize"})
_NUMBERS = frozenset({"parameters", "contextLength"})
_MOMENTS = frozenset({"startedAt", "readyAt", "lastChanged"})


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
    dump = resource.dump()
    lines = _pairs(head, "")
    spec = dump.get("spec") or {}
    if isinstance(resource, ModelService):
        spec["promptCache"] = _prompt_cache(resource)
    lines += _section("Spec", _fields(spec, now))
    status = {k: v for k, v in (dump.get("status") or {}).items() if k not in _OWN_SECTIONS}
    lines += _section("Status", _fields(status, now))
    conditions = getattr(resource.status, "conditions", ())
    said = getattr(resource.status, "message", "")
    lines += _table("Conditions", _conditions(conditions, now, said) if conditions else None)
    if isinstance(resource, ModelService):
        lines += _table("Replicas", _replicas(resource, now) if resource.status.replica_statuses else None)
        lines += _log(resource.status.last_log_lines)
    lines += _table("Events", events_table(events, now=now))
    return lines


def _prompt_cache(service: ModelService) -> str:
    """Return in words how the service shares its prompt cache."""
    means = "perCaller, no prompt is taken up by another's" if service.parts_prompts else "shared by all who use it"
    return f"{means} (auto)" if service.spec.prompt_cache == "auto" else means


def _fields(data: Any, now: datetime, prefix: str = "") -> list[tuple[str, str, Tone]]:
    """Return the fields that are set as (label, value, tone), nested ones flattened."""
    pairs: list[tuple[str, str, Tone]] = []
    if not isinstance(data, Mapping):
        return pairs
    for key, value in data.items():
        label = f"{prefix} {words(key).lower()}" if prefix else words(key)
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping) and key not in {"env", "data"}:
            pairs += _fields(value, now, label)
            continue
        tone = TONES.get(str(value), "") if key == "phase" else ""
        pairs.append((label, _value(key, value, now), tone))
    return pairs


def _value(key: str, value: Any, now: datetime) -> str:
    if key in _BYTES and isinstance(value, int):
        return format_bytes(value, binary=key == "memoryEstimate")
    if key in _NUMBERS and isinstance(value, int):
        return count(value)
    if key == "nextTryAt" and isinstance(value, str):
        return f"in {duration((datetime.fromisoformat(value) - now).total_seconds() + 0.5)}"
    if key == "engine":
        return ENGINES.get(value, str(value))
    if key in _MOMENTS and isinstance(value, str):
        return f"{age(datetime.fromisoformat(value), now)} ago"
    if key == "args" and isinstance(value, list):
        import shlex

        return shlex.join(str(item) for item in value)
    return cell(value)


def _pairs(pairs: Iterable[tuple[str, str, Tone]], indent: str) -> list[Line]:
    pairs = list(pairs)
    width = max((text_width(label) for label, _, _ in pairs), default=0) + 1
    lines: list[Line] = []
    for label, value, tone in pairs:
        first, *more = facts(value) or [""]
        lines.append(line(indent + pad(f"{label}:", width) + "  ", Span(first, tone)))
        lines += [line(indent + " " * (width + 2), Span(fact, tone)) for fact in more]
    return lines


def _section(title: str, pairs: list[tuple[str, str, Tone]]) -> list[Line]:
    if not pairs:
        return []
    return [(), line(Span(title, "bold")), *_pairs(pairs, "  ")]


def _table(title: str, table: Table | None) -> list[Line]:
    if table is None:
        return []
    return [(), line(Span(title, "bold")), *((Span("  "), *line_) for line_ in table.lines())]


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


def _replicas(service: ModelService, now: datetime) -> Table:
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
            {"STATE": TONES.get(r.phase, "")},
        )
        for r in service.status.replica_statuses
    ]
    return Table(["REPLICA", "STATE", "MEMORY", "RESTARTS", "AGE", "MESSAGE"], rows)


def _log(lines: Sequence[str]) -> list[Line]:
    if not lines:
        return []
    return [(), line(Span("Last log lines", "bold")), *(line(Span(f"  │ {clean(text)}", "dim")) for text in lines)]


def events_table(events: Sequence[Event], *, now: datetime) -> Table:
    """Return the table of events, newest last."""
    rows = []
    for event in events:
        times = f" ({event.count} times in {age(event.first, now)})" if event.count > 1 else ""
        tones: dict[str, Tone] = {"TYPE": "bad" if event.type == "Warning" else ""}
        rows.append(Row([age(event.last, now), event.type, event.reason, event.message + times], tones))
    return Table(["AGE", "TYPE", "REASON", "MESSAGE"], rows, empty="Nothing has happened yet.", elastic=("MESSAGE",))
