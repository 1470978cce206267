"""Results of verbs as values of their cells, which don't show them a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from llmos.client.messages import WhoAmI
from llmos.errors import Unsupported
from llmos.present.resources import resource_table
from llmos.present.views import view_of
from llmos.resources import KINDS, Resource
from llmos.resources.base import utcnow

__all__ = ["Found", "ShownOnce", "quiet"]


class ShownOnce:
    """A value that its own cell doesn't show, because it was shown already; later cells show it."""

    _is_new = True

    def _ipython_display_(self) -> None:
        """Show the value, except the first time, when IPython asks at the end of its own cell."""
        if self._is_new:
            self._is_new = False
            return
        self.show()

    def show(self) -> None:
        """Show the value."""
        raise NotImplementedError


class Found(ShownOnce, list[Any]):
    """Resources that a verb has shown, as a list; `df` is the same as a pandas DataFrame."""

    def show(self) -> None:
        """Show the resources as a table, other values as a list."""
        from llmos_widgets.output import NotebookOutput

        first = self[0] if self else None
        if isinstance(first, Resource):
            kind, namespaces = KINDS[first.kind], len({r.metadata.namespace for r in self}) > 1
            table = view_of(kind).table(self, now=utcnow(), namespaces=namespaces)
            NotebookOutput().show(table or resource_table(kind, self, now=utcnow()))
        else:
            NotebookOutput().text(repr(list(self)))

    @property
    def df(self) -> Any:
        """The resources as a pandas DataFrame, with one row each and columns named by path: ``status.phase``.

        Raises
        ------
        Unsupported
            pandas isn't installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise Unsupported("pandas is not installed here. Install it with: %pip install pandas") from None
        return pd.json_normalize([item.dump() if isinstance(item, Resource) else item for item in self])


def quiet(value: Any) -> Any:
    """Return the value in a form that its own cell doesn't show again."""
    if isinstance(value, Resource):
        return _quiet_resource(value)
    if isinstance(value, WhoAmI):
        return _quiet_identity(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return Found(value)
    return value


def _quiet_resource(value: Resource) -> Resource:
    resource: Resource = _quiet_type(value, lambda: Found([resource]).show()).model_construct(**dict(value))
    return resource


def _quiet_identity(value: WhoAmI) -> WhoAmI:
    from llmos_widgets.output import NotebookOutput

    facts = {field.name: getattr(value, field.name) for field in fields(value)}
    identity: WhoAmI = _quiet_type(value, lambda: NotebookOutput().text(repr(value)))(**facts)
    return identity


def _quiet_type(value: Any, show: Callable[[], None]) -> Any:
    """Return a subclass of the value's type, which IPython shows only in later cells."""
    shown = False

    def display_later(_: Any) -> None:
        nonlocal shown
        if shown:
            show()
        shown = True

    attributes = {"_ipython_display_": display_later, "__module__": __name__}
    return type(type(value).__name__, (type(value),), attributes)
