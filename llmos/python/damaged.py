"""Advice where damaged packages of the platform keep a command from starting; uses the standard library alone."""

from __future__ import annotations

from pathlib import Path

from llmos.python.check import RECORD, damage

__all__ = ["explain_damage", "told"]

_TOLD = 3


def told(words: list[str]) -> str:
    """Return the first of some differences, and how many more there are."""
    more = f" (and {len(words) - _TOLD} more)" if len(words) > _TOLD else ""
    return "; ".join(words[:_TOLD]) + more


def explain_damage(prefix: str) -> str:
    """Say what differs from what set-up has put into an environment, and what to do; empty where nothing does."""
    if not Path(prefix, RECORD).exists():
        return ""
    words = damage(prefix)
    if not words:
        return ""
    return (
        f"LLMOS' packages are damaged: {told(words)}, in {prefix}. Stop LLMOS (llmos down), then "
        "make up makes it again; people's own packages stay."
    )
