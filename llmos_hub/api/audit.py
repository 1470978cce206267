"""The audit of the API: one record for each request of an authenticated caller, also for refused ones."""

from __future__ import annotations

import logging
from typing import Final

from llmos.resources import Resource
from llmos_hub.api.dependencies import Call

__all__ = ["log_action"]

_READING: Final = frozenset({"", "get", "list", "watch"})

logger = logging.getLogger("llmos.audit")


def log_action(call: Call, verb: str, outcome: str) -> None:
    """Log a request after it was answered, unless it was plain reading.

    Parameters
    ----------
    verb
        The verb that was authorised; empty for operations without one.
    outcome
        The HTTP status of the answer, or the code of the error: ``201``, ``forbidden``.
    """
    if verb in _READING:
        return
    kind = call.kind.plural if call.kind is not Resource else ""
    where = "/".join(filter(None, (kind, call.namespace, call.request.path_params.get("name"))))
    logger.info("%s: %s %s: %s (%s)", call.caller.name, verb, where, outcome, call.request.scope["llmos.request_id"])
