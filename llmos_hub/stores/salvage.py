"""What can be read of a resource that this version can't read whole: a newer version's, a hand-edited or a damaged one.

It is listed like any other, so that it can be seen, said to be so, and deleted. What it says of ``spec`` is not
followed and never written back: `Resource.unread` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from llmos.errors import Internal, Invalid
from llmos.resources.base import Resource, invalid

__all__ = ["refuse_change", "refuse_unread", "salvaged"]

R = TypeVar("R", bound=Resource)

_TRIES: Final = 6
"""Each takes away what the last one stumbled over; what no part is left of has a placeholder."""
_WORDS: Final = 1000
"""Characters of the reason: it is shown in one sentence."""


def salvaged(kind: type[R], data: Any, why: str = "") -> R | None:
    """The resource without what is wrong with it; None where not even its name can be read.

    A status that can't be read is no reason to do nothing: it is worked out anew.

    Parameters
    ----------
    kind
        Of which kind it should be.
    data
        As it lies in the store, in JSON's types.
    why
        What is known to be wrong already.
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
    """Refuse to write over part of what can't be read.

    Raises
    ------
    Internal
        It can't be read.
    """
    if current.unread:
        raise Internal(
            f'This version can\'t read {current.kind} "{current.key}": {current.unread}. A newer one may have written it. '
            "Apply it whole again, or delete it."
        )


def refuse_change(current: Resource) -> None:
    """The same, as the answer to who wants a part of it changed.

    Raises
    ------
    Invalid
        It can't be read.
    """
    if current.unread:
        raise Invalid(
            f"{current.kind} \"{current.key}\" can't be changed in part, since this version can't read it: "
            f"{current.unread}. Apply it whole again, or delete it."
        )
