"""The programs that serve models, and which of them serves a given one.

Importing this imports nothing else, since the engines' own processes lie in this package and must start fast;
the registry is made when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos_hub.engines.registry import ENGINES, choose

__all__ = ["ENGINES", "choose"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from llmos_hub.engines import registry

        return getattr(registry, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
