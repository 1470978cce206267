"""The progress of a resource to ready as lines, one per phase: updated in place while it lasts, a record afterwards."""

from __future__ import annotations

from datetime import datetime

from llmos.client.progress import Progress
from llmos.present.amounts import download_state, stopwatch, with_next_try
from llmos.present.fields import tone_of
from llmos.present.hints import Hints
from llmos.present.text import Line, Span, clean, facts, fit, line, line_width, pad, plain
from llmos.present.views import view_of

__all__ = ["Transcript"]

_PHASE_WIDTH = 12
_PLAIN_EVERY = 10.0
"""Seconds between two lines about one download if lines can't be updated in place."""


class Transcript:
    """The observed phases of a resource as lines.

    Parameters
    ----------
    hints
        Spelling of commands in hints.

    Attributes
    ----------
    current
        The last observation.
    """

    def __init__(self, hints: Hints | None = None) -> None:
        self._hints = hints or Hints()
        self._past: list[Line] = []
        self.current: Progress | None = None
        self._told: tuple[str, str, str] | None = None
        self._told_at: datetime | None = None

    def add(self, progress: Progress) -> None:
        """Add an observation."""
        before = self.current
        if before is not None and before.phase not in {progress.phase, next(iter(progress.kind.phases))}:
            self._past += _finished(before, progress.changed)
        self.current = progress

    def lines(self, *, now: datetime, width: int | None = None) -> list[Line]:
        """Return a line per completed phase, then the current one, which has more lines after a failure."""
        current = _current(self.current, self._hints, now) if self.current is not None else []
        return [fit(line_, width) for line_ in [*self._past, *current]]

    def news(self, *, now: datetime) -> list[Line]:
        """Return the lines to print now if lines can't be updated in place; each phase and reason comes once."""
        if self.current is None:
            return []
        told = (self.current.phase, self.current.message, self.current.away)
        waited = (now - self._told_at).total_seconds() if self._told_at is not None else _PLAIN_EVERY
        if told == self._told and (self.current.download is None or waited < _PLAIN_EVERY):
            return []
        self._told, self._told_at = told, now
        return _current(self.current, self._hints, now)


def _start(progress: Progress, word: str) -> Line:
    tone = tone_of(progress.kind, progress.phase)
    return line(Span(f"{progress.name}   ", "bold"), Span(pad(word, _PHASE_WIDTH), tone))


def _finished(progress: Progress, until: datetime) -> list[Line]:
    """Return the lines that remain of a completed phase."""
    took = Span(f"   {stopwatch((until - progress.phase_started).total_seconds())}", "dim")
    view = view_of(progress.kind)
    if (finished := view.finished(progress)) is not None:
        word, text = finished
        return [(*_start(progress, word), Span(f" {text}"), took)] if word else []
    first, *more = _with_reason(progress, end=took)
    told = clean((progress.resource is not None and view.lasting(progress.resource)) or "")
    return [first, *(each for each in more if told and told in plain(each))]


def _with_reason(progress: Progress, now: datetime | None = None, *, end: Span | None = None) -> list[Line]:
    """Return phase and reasons, one line each; `end` follows the first, and the next try if `now` is given."""
    first, *more = _reasons(progress) or [""]
    if now is not None and progress.resource is not None:
        at = getattr(progress.resource.status, "next_try_at", None)
        first = with_next_try(first, at, now)
    start = _start(progress, progress.phase)
    indent = " " * line_width(start)
    ending = (end,) if end is not None else ()
    return [
        (*start, Span(f" {first}" if first else ""), *ending),
        *(line(Span(f"{indent} {fact}", "dim")) for fact in more),
    ]


def _reasons(progress: Progress) -> list[str]:
    if progress.message:
        return facts(progress.message)
    return list(view_of(progress.kind).reason(progress) or ())


def _current(progress: Progress, hints: Hints, now: datetime) -> list[Line]:
    if progress.away:
        return [(*_start(progress, progress.phase), Span(" " + clean(progress.away), "bad"))]
    if progress.ready:
        return [_ready(progress, hints)]
    if progress.failed:
        logged = progress.log_lines[-10:]
        return [*_with_reason(progress, now), *(line(Span(f"   │ {clean(text)}", "dim")) for text in logged)]
    if progress.download is not None:
        return [(*_start(progress, progress.phase), Span(f" {download_state(progress.download)}"))]
    seconds = int(max(0.0, (now - progress.phase_started).total_seconds()))
    blank = "   " if _reasons(progress) else " "
    return _with_reason(progress, now, end=Span(f"{blank}{seconds} s", "dim"))


def _ready(progress: Progress, hints: Hints) -> Line:
    """Return the line of a ready resource: the time it took, and how to use it."""
    use = view_of(progress.kind).use(progress, hints)
    arrow = f"   →   {use}" if use else ""
    degraded = progress.kind.phases.get(progress.phase) == "degraded"
    less = f"   {clean(progress.message)}" if degraded and progress.message else ""
    return (*_start(progress, progress.phase), Span(f" {stopwatch(progress.elapsed)}{less}{arrow}"))
