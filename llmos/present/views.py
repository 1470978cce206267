"""Views of kinds that deserve more than the general one: a module here that is named like a plural has a ``VIEW``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llmos.resources import Resource

if TYPE_CHECKING:
    from llmos.client.progress import Progress
    from llmos.present.hints import Hints
    from llmos.present.tables import Table

__all__ = ["View", "view_of"]


def _nothing(*_: Any) -> Any:
    return None


@dataclass(frozen=True, slots=True)
class View:
    """The parts of a kind's view that differ from the general ones; each function may return None.

    Attributes
    ----------
    table
        Returns the table of some resources: ``table(resources, now=…, namespaces=…)``.
    spec
        Returns fields of the spec, by their JSON names, to describe in other words.
    reason
        Returns the reason of a phase that has no message.
    finished
        Returns the line's word and text for a phase that is over, ``("", "")`` to leave it out.
    lasting
        Returns the reason that stays visible after its phase.
    use
        Returns how to use a ready resource.
    """

    table: Callable[..., Table | None] = _nothing
    spec: Callable[[Any], Mapping[str, str] | None] = _nothing
    reason: Callable[[Progress], Sequence[str] | None] = _nothing
    finished: Callable[[Progress], tuple[str, str] | None] = _nothing
    lasting: Callable[[Any], str | None] = _nothing
    use: Callable[[Progress, Hints], str | None] = _nothing


@cache
def view_of(kind: type[Resource]) -> View:
    """Return the view of a kind."""
    name = f"llmos.present.{kind.plural}"
    if find_spec(name) is None:
        return View()
    view: View = import_module(name).VIEW
    return view
