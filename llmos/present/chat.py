"""The small line under an answer."""

from __future__ import annotations

from llmos.present.amounts import count, duration

__all__ = ["chat_footer", "waiting_for"]

_SILENT = 2.0
"""Seconds of waiting that nobody has to be told of."""
_MEASURABLE = 0.1
"""Seconds that the writing of an answer must take for its speed to mean anything: one that arrives at once was
written before."""


def waiting_for(model: str, seconds: float) -> str:
    """Return what is shown while a model hasn't begun to answer; nothing during the first two seconds.

    >>> waiting_for("chat", 12.3), waiting_for("chat", 0.5)
    ('chat is reading the question, or busy with others   12 s', '')
    """
    return f"{model} is reading the question, or busy with others   {duration(seconds)}" if seconds >= _SILENT else ""


def chat_footer(*, tokens: int | None, first_after: float | None, seconds: float) -> str:
    """Tokens, how soon the first came, and how many a second.

    Parameters
    ----------
    tokens
        Tokens of the answer; None where the engine doesn't count them.
    first_after
        Seconds until the first came; None where none came.
    seconds
        Seconds until the last came.

    >>> chat_footer(tokens=412, first_after=0.31, seconds=13.6)
    '412 tokens · first after 0.3 s · 31 tokens/s'
    """
    parts = [f"{count(tokens)} token{'' if tokens == 1 else 's'}"] if tokens is not None else []
    if first_after is not None:
        parts.append(f"first after {first_after:.1f} s")
        writing = seconds - first_after
        if tokens is not None and tokens > 1 and writing >= _MEASURABLE:
            speed = (tokens - 1) / writing
            parts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    return " · ".join(parts)
