"""Reports of jobs, from the lines of JSON that they write to their logs; see `llmos_hub.sources.base`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from llmos.errors import NotFound
from llmos_hub.backends.base import Report
from llmos_hub.sources.base import FetchProgress, ModelFiles

__all__ = ["REPORT_LINES", "is_report", "make_report", "read_report"]

REPORT_LINES: Final = 200
"""Lines of a job's log that are read, enough for the last progress and the messages before an error."""
_TIMEOUT: Final = 5.0
"""Maximum seconds for reading a log."""


async def read_report(log: AsyncIterator[str]) -> Report:
    """Return the report in a log, or in the lines that came in time; an empty one if there is no log."""
    lines = []
    try:
        async with asyncio.timeout(_TIMEOUT):
            async for line in log:
                lines.append(line)  # noqa: PERF401 - keeps the lines before a time-out
    except (NotFound, TimeoutError):
        pass
    return make_report(lines)


def make_report(lines: Iterable[str]) -> Report:
    """Return the report in some lines of a log; the last of each type counts."""
    said = {message["type"]: message for line in lines if isinstance((message := _parse(line)).get("type"), str)}
    model, error = said.get("done", {}).get("model"), said.get("error", {})
    return Report(
        progress=_progress(said.get("progress", {})),
        files=ModelFiles.load(model) if isinstance(model, dict) else None,
        code=str(error.get("code", "")),
        message=str(error.get("message", "")),
        info=str(said.get("info", {}).get("message", "")),
    )


def is_report(line: str) -> bool:
    """Return whether a line of a log is part of a report."""
    return "type" in _parse(line)


def _parse(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _progress(message: Mapping[str, Any]) -> FetchProgress | None:
    done, total, rate = message.get("done"), message.get("total"), message.get("rate")
    if not isinstance(done, int):
        return None
    return FetchProgress(
        file=str(message.get("file", "")),
        done=done,
        total=total if isinstance(total, int) else None,
        rate=float(rate) if isinstance(rate, int | float) else None,
    )
