"""The command ``llmos``; its verbs are also those of the notebook (``%llmos``)."""

from __future__ import annotations

from llmos.cli.entry import main

__all__ = ["main"]
