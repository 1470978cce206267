"""The exception for a start that is refused or can't succeed, as the installed JupyterHub displays it."""

from __future__ import annotations

from typing import Any

from tornado import web

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub before 6
    SpawnException = None

__all__ = ["refusal", "too_slow"]


def refusal(message: str, *, reason: str, status: int = 400, html: str = "") -> web.HTTPError:
    """Return an exception whose message the Hub shows to the user, and which it doesn't count as its own failure.

    Parameters
    ----------
    message
        The message: what was requested, why it is refused, and what to do.
    reason
        One word for metrics: ``options``, ``quota``, ``image`` …
    status
        The HTTP status. JupyterHub 5 counts a start with a status from 500 on as failed, and exits after five failures
        if a site has set ``consecutive_failure_limit``.
    html
        The message as HTML, if pages should not show it as plain text.

    Returns
    -------
    HTTPError
        A ``SpawnException`` on JupyterHub 6; on older versions an error with the attributes that their pages use.
    """
    if SpawnException is not None:
        error: Any = SpawnException(message, reason=reason, status_code=status)
    else:
        error = web.HTTPError(status, log_message=message)  # Tornado doubles its percent signs
    error.jupyterhub_message = message
    if html:
        error.jupyterhub_html_message = html
    return error  # type: ignore[no-any-return]  # JupyterHub has no types


def too_slow(seconds: float, phase: str) -> web.HTTPError:
    """Return an exception about a start that took too long, with the phase that it had reached.

    It has to be raised before the Hub's own time limit, whose message says nothing.
    """
    message = f"The server didn't start: after {seconds:.0f} s it was here: {phase}."
    return refusal(message, reason="timeout", status=408)
