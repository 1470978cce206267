"""The contents of resources, whatever their kind: their size, their secrets, and characters that nobody can be given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from llmos.errors import Cause, Invalid
from llmos.resources import Resource
from llmos_hub.stores.salvage import refuse_change

__all__ = ["check_texts", "keeping_secrets", "size_of", "without_secrets"]

R = TypeVar("R", bound=Resource)


def size_of(resource: Resource) -> int:
    """Return the size in bytes of metadata and spec as JSON."""
    body = resource.dump()
    return len(json.dumps([body["metadata"], body["spec"]], separators=(",", ":"), ensure_ascii=False).encode())


def without_secrets(resource: R) -> R:
    """Return the resource with empty write-only fields."""
    if not resource.write_only:
        return resource
    fields = type(resource.spec).model_fields
    empty = {name: fields[name].get_default(call_default_factory=True) for name in resource.write_only}
    return resource.model_copy(update={"spec": resource.spec.model_copy(update=empty)})


def keeping_secrets(new: R, old: R | None) -> R:
    """Return `new` with the write-only fields of `old` that it doesn't set.

    A client that sends back what it read, with another label, sends no secrets, since it read none; that must
    not delete them. A field that is present, even if empty, replaces the stored one.
    """
    unsaid = [name for name in new.write_only if name not in new.spec.model_fields_set]
    if old is None or not unsaid:
        return new
    refuse_change(old)
    kept = {name: getattr(old.spec, name) for name in unsaid}
    return new.model_copy(update={"spec": new.spec.model_copy(update=kept)})


def check_texts(resource: Resource) -> None:
    """Refuse zero bytes in the spec: arguments, variables and file names can't hold one (execve(2)).

    Raises
    ------
    Invalid
        A text has one; the error names the field.
    """
    for path, text in _texts("spec", resource.spec.model_dump(by_alias=True)):
        if "\0" in text:
            cause = Cause(path, "has a zero byte (\\u0000) in it, which no program can be given")
            raise Invalid(str(cause), causes=[cause])


def _texts(path: str, value: Any) -> Sequence[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [found for key, inner in value.items() for found in _texts(f"{path}.{key}", inner)]
    if isinstance(value, list | tuple):
        return [found for index, inner in enumerate(value) for found in _texts(f"{path}[{index}]", inner)]
    return []
