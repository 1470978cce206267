"""The lines below an answer: statistics and waiting."""

from __future__ import annotations

from llmos.present.amounts import duration

__all__ = ["chat_footer", "waiting_for"]

_SILENT = 2.0
"""Waiting time in seconds that isn't shown."""
_MEASURABLE = 0.1
"""Minimum time in seconds between first and last token for a rate to be meaningful: an answer that arrives at once was
generated before."""


def waiting_for(model: str, seconds: float) -> str:
    """Return the text shown while a model hasn't begun to answer; empty during the first two seconds.

    >>> waiting_for("chat", 12.3), waiting_for("chat", 0.5)
    ('chat is reading the question, or busy with others   12 s', '')
    """
    return f"{model} is reading the question, or busy with others   {duration(seconds)}" if seconds >= _SILENT else ""


def chat_footer(*, tokens: int | None, first_after: float | None, seconds: float) -> str:
    """Return the statistics of an answer: tokens, time until the first, and tokens per second.

    Parameters
    ----------
    tokens
        Tokens of the answer; None if the engine doesn't count them.
    first_after
        Seconds until the first token; None if none came.
    seconds
        Seconds until the last token.

    >>> chat_footer(tokens=412, first_after=0.31, seconds=13.6)
    '412 tokens · first after 0.3 s · 31 tokens/s'
    """
    parts = [f"{tokens:,} token{'' if tokens == 1 else 's'}"] if tokens is not None else []
    if first_after is not None:
        parts.append(f"first after {first_after:.1f} s")
        writing = seconds - first_after
        if tokens is not None and tokens > 1 and writing >= _MEASURABLE:
            speed = (tokens - 1) / writing
            parts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    return " · ".join(parts)
