"""The fields of an object that are ours, and their values.

The cluster records who set each field (``metadata.managedFields``): a field that somebody else changes is no
longer ours, and one that somebody removes no longer exists. So comparing the values of our fields with those we
would apply shows whether an object was changed, even in a process that has just started and applied nothing yet.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#managed-fields
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from llmos.resources.quantities import parse_quantity
from llmos_hub.backends.kubernetes.names import digest
from llmos_hub.kubernetes.connection import FIELD_MANAGER

__all__ = ["fields_of", "values_of", "values_wanted"]

_IDENTITY: Final = ("apiVersion", "kind")
_NAMES: Final = ("name", "namespace")
_QUANTITIES: Final = ("requests", "limits")
"""Fields whose values the server may format differently: 1073741824 as 1Gi."""
_SIZE: Final = "sizeLimit"


def fields_of(obj: Mapping[str, Any]) -> str:
    """Return a hash of the set of an object's fields that are ours.

    Parameters
    ----------
    obj
        The object from the server, with ``managedFields``.
    """
    return digest(_ours(obj))


def values_of(obj: Mapping[str, Any]) -> str:
    """Return a hash of the values of our fields; ten times as expensive as `fields_of`."""
    return digest(_plain(_part(obj, _ours(obj)))) if _ours(obj) else ""


def values_wanted(obj: Mapping[str, Any]) -> str:
    """Return the hash for an object as we apply it; equal to `values_of` if the stored object is unchanged."""
    content = {name: value for name, value in obj.items() if name not in _IDENTITY}
    content["metadata"] = {name: value for name, value in obj["metadata"].items() if name not in _NAMES}
    return digest(_plain(content))


def _ours(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in obj["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            found: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return found
    return {}


def _part(value: Any, fields: Mapping[str, Any]) -> Any:
    """Return the parts of a value in a set of fields (``FieldsV1``); the whole value if it names no part."""
    names = [name for name in fields if name != "."]
    if not names:
        return value
    if isinstance(value, Mapping):
        return {n[2:]: _part(value[n[2:]], fields[n]) for n in names if n.startswith("f:") and n[2:] in value}
    if isinstance(value, list):
        return list(_items(value, fields, names))
    return value


def _items(items: list[Any], fields: Mapping[str, Any], names: Iterable[str]) -> Iterable[Any]:
    """Yield the items of a list that are named by key (``k:``), value (``v:``) or index (``i:``)."""
    named = [(name[0], _read(name[2:]), fields[name]) for name in names if name[:2] in ("k:", "v:", "i:")]
    for place, item in enumerate(items):
        for how, what, part in named:
            if how == "k" and isinstance(item, Mapping) and what.items() <= item.items():
                yield _part(item, part)
            elif (how == "v" and what == item) or (how == "i" and what == place):
                yield item


@lru_cache(maxsize=1024)
def _read(text: str) -> Any:
    return json.loads(text)


def _plain(value: Any, *, amounts: bool = False) -> Any:
    """Return a value without empty parts, which the server leaves out, and with normalized quantities."""
    if isinstance(value, Mapping):
        found = {
            name: _plain(part, amounts=amounts or name in _QUANTITIES or name == _SIZE) for name, part in value.items()
        }
        return {name: part for name, part in found.items() if part not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if amounts and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return f"{parse_quantity(value).normalize():f}"
    return value
