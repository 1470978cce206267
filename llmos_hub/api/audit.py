"""The audit of the API: one record for each request of an authenticated caller, also for refused ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Action", "Audit", "log_changes"]

_READING: Final = frozenset({"", "get", "list", "watch"})

logger = logging.getLogger("llmos.audit")


@dataclass(frozen=True, slots=True)
class Action:
    """A request of a caller, with its outcome.

    Attributes
    ----------
    caller
        The caller's name.
    verb
        The verb that was authorised; empty for operations without one.
    kind
        The kind's plural; empty for operations that are about none.
    namespace, name
        The namespace and name in the address; empty if it has none.
    outcome
        The HTTP status of the answer, or the code of the error: ``201``, ``forbidden``.
    request_id
        The request's id.
    """

    caller: str
    verb: str
    kind: str
    namespace: str
    name: str
    outcome: str
    request_id: str


Audit = Callable[[Action], None]
"""A function that is called once with each action, after it."""


def log_changes(action: Action) -> None:
    """Log all actions that aren't plain reading."""
    if action.verb not in _READING:
        where = "/".join(filter(None, (action.kind, action.namespace, action.name)))
        logger.info("%s: %s %s: %s (%s)", action.caller, action.verb, where, action.outcome, action.request_id)
