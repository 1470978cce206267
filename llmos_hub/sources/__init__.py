"""Sources of models: one module per URI scheme, imported when a URI needs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from llmos.errors import SourceFailed

if TYPE_CHECKING:
    from llmos_hub.sources.base import Source

__all__ = ["SOURCES", "source_of"]

SOURCES: Final = {
    "demo": "llmos_hub.sources.demo",
    "file": "llmos_hub.sources.file",
    "hf": "llmos_hub.sources.huggingface",
    "volume": "llmos_hub.sources.volume",
}
"""Module by scheme; imported on use, since a hub's client takes longer to import than a file to check."""


def source_of(uri: str) -> Source:
    """Return the source for a URI.

    Raises
    ------
    SourceFailed
        No source has that scheme; the message lists the known ones.
    """
    scheme, colon, _ = uri.partition("://")
    if not colon or scheme not in SOURCES:
        raise SourceFailed(
            f'"{uri[:120]}" is not a known kind of model address. Use one of: {", ".join(s + "://…" for s in SOURCES)}'
        )
    return cast("Source", import_module(SOURCES[scheme]))
