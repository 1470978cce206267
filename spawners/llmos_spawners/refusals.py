"""A start that is refused or can't succeed, told to the person in the way that the installed JupyterHub shows."""

from __future__ import annotations

from typing import Any

from tornado import web

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub before 6
    SpawnException = None

__all__ = ["refusal"]


def refusal(message: str, *, reason: str, status: int = 400, html: str = "") -> web.HTTPError:
    """What a spawner raises so that the person reads `message`, and the Hub counts a refusal and no error of its own.

    Parameters
    ----------
    message
        What was asked for, why it isn't given, and what to do.
    reason
        One word for metrics: ``options``, ``quota``, ``image`` …
    status
        The HTTP status. From 500 on JupyterHub 5 counts the start as failed, and after five of those it exits
        where a site has set ``consecutive_failure_limit``.
    html
        The same for pages, where it isn't plain text.

    Returns
    -------
    HTTPError
        A ``SpawnException`` on JupyterHub 6; before, an error with the attributes that its pages look for.
    """
    if SpawnException is not None:
        error: Any = SpawnException(message, reason=reason, status_code=status)
    else:
        error = web.HTTPError(status, log_message=message)  # Tornado doubles its percent signs
    error.jupyterhub_message = message
    if html:
        error.jupyterhub_html_message = html
    return error  # type: ignore[no-any-return]  # JupyterHub has no types
