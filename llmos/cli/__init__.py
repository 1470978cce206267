"""The command ``llmos``; its verbs are also the notebook's (``%llmos``)."""

from __future__ import annotations

from llmos.cli.entry import main

__all__ = ["main"]
