"""The readable parts of resources that can't be read completely: from a newer version, hand-edited or damaged.

Such a resource is listed like any other, so that it can be seen and deleted. Its ``spec`` is neither acted on
nor written back; `Resource.unread` gives the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from llmos.errors import Internal, Invalid
from llmos.resources.base import Resource, invalid

__all__ = ["Unreadable", "refuse_change", "refuse_unread", "salvaged"]

R = TypeVar("R", bound=Resource)

_TRIES: Final = 6
"""Maximum attempts; each removes the fields that the last one failed on, and a spec as a whole gets a placeholder."""
_WORDS: Final = 1000
"""Maximum characters of the reason: it is shown within one sentence."""


class Unreadable(Exception):
    """A value that this version can't read: written by a newer one, sealed with another key, or damaged."""


def salvaged(kind: type[R], data: Any, why: str = "") -> R | None:
    """Return the resource without its invalid fields; None if not even its name can be read.

    An invalid status alone doesn't mark the resource as unread: the status is computed again.

    Parameters
    ----------
    kind
        The expected kind.
    data
        The stored object, in JSON's types.
    why
        A known reason why it can't be read completely.
    """
    data = dict(data) if isinstance(data, Mapping) else {}
    data = {"kind": kind.kind_name(), **{part: data[part] for part in ("metadata", "spec", "status") if part in data}}
    for _ in range(_TRIES):
        try:
            found = kind.model_validate(data)
        except ValidationError as error:
            parts = {tuple(map(str, item["loc"])) for item in error.errors(include_url=False)}
            if not why and any(part[0] != "status" for part in parts):
                why = invalid(error, kind).message
            data = _without(kind, data, parts)
        else:
            return found.marked_unread(why[:_WORDS].rstrip(".")) if why else found
    return None


def _without(kind: type[Resource], data: Mapping[str, Any], parts: set[tuple[str, ...]]) -> dict[str, Any]:
    left = dict(data)
    for part, *fields in sorted(parts):
        whole = left.get(part)
        inner = [name for name in fields[:1] if isinstance(whole, Mapping) and name in whole]
        if inner and isinstance(whole, Mapping):
            left[part] = {name: value for name, value in whole.items() if name != inner[0]}
        elif part == "spec":
            left[part] = dict(kind.placeholder)
        elif part != "metadata":
            left.pop(part, None)
    return left


def refuse_unread(current: Resource) -> None:
    """Refuse a partial write of a resource that can't be read completely.

    Raises
    ------
    Internal
        It can't be read completely.
    """
    if current.unread:
        raise Internal(
            f'This version can\'t read {current.kind} "{current.key}": {current.unread}. A newer one may have written it. '
            "Apply it whole again, or delete it."
        )


def refuse_change(current: Resource) -> None:
    """Refuse a patch of a resource that can't be read completely.

    Raises
    ------
    Invalid
        It can't be read completely.
    """
    if current.unread:
        raise Invalid(
            f"{current.kind} \"{current.key}\" can't be changed in part, since this version can't read it: "
            f"{current.unread}. Apply it whole again, or delete it."
        )
