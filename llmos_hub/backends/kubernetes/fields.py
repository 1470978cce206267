"""Which of an object's fields are ours, and what they hold.

The cluster remembers who set which field (``metadata.managedFields``): a field that somebody else changes is no
longer ours, and one that somebody removes is no longer there. So what our fields hold, beside what we would apply,
tells whether an object still is what it was made; also to a process that has just started and applied nothing yet.

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
from llmos_hub.kubernetes_api import FIELD_MANAGER

__all__ = ["fields_of", "values_of", "values_wanted"]

_IDENTITY: Final = ("apiVersion", "kind")
_NAMES: Final = ("name", "namespace")
_QUANTITIES: Final = ("requests", "limits")
"""Fields whose values the server may write otherwise: 1073741824 as 1Gi."""
_SIZE: Final = "sizeLimit"


def fields_of(obj: Mapping[str, Any]) -> str:
    """A hash of which fields of an object are ours.

    Parameters
    ----------
    obj
        As the server has it, with ``managedFields``.
    """
    return digest(_ours(obj))


def values_of(obj: Mapping[str, Any]) -> str:
    """A hash of what these hold; ten times the work of `fields_of`."""
    return digest(_plain(_part(obj, _ours(obj)))) if _ours(obj) else ""


def values_wanted(obj: Mapping[str, Any]) -> str:
    """The same of an object as we apply it: equal where it is there unchanged."""
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
    """Of a value what a set of fields (``FieldsV1``) names; all where it names no part."""
    names = [name for name in fields if name != "."]
    if not names:
        return value
    if isinstance(value, Mapping):
        return {n[2:]: _part(value[n[2:]], fields[n]) for n in names if n.startswith("f:") and n[2:] in value}
    if isinstance(value, list):
        return list(_items(value, fields, names))
    return value


def _items(items: list[Any], fields: Mapping[str, Any], names: Iterable[str]) -> Iterable[Any]:
    """The items of a list that are named by their keys (``k:``), themselves (``v:``) or their place (``i:``)."""
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
    """A value without what is empty, which the server leaves out, and with amounts as numbers."""
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
