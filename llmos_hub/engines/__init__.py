"""Engines: the programs that serve models, and the choice of one for a given model.

Importing this package imports nothing else: the engines' own processes are modules of it and must start fast. The
registry is imported on first use.
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
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
