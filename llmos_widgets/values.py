"""What a verb found, as the value of its cell: there to be used, not shown a second time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmos.errors import Unsupported
from llmos.resources import Resource

__all__ = ["Found", "quiet"]


class Found(list[Any]):
    """Resources that a verb showed already, as a list; `df` is the same as a pandas DataFrame."""

    def _ipython_display_(self) -> None:
        """Show nothing: the verb has."""

    @property
    def df(self) -> Any:
        """A DataFrame with a row per resource, columns named by path: ``status.phase``.

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


def _silent(self: Any) -> None:
    """Show nothing: the verb has."""


def quiet(value: Any) -> Any:
    """The value, such that a cell that ends in it doesn't show it again."""
    if isinstance(value, Resource):
        shown: Any = type(type(value).__name__, (type(value),), {"_ipython_display_": _silent, "__module__": __name__})
        return shown.model_construct(**dict(value))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return Found(value)
    return value
