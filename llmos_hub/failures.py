"""Descriptions of exceptions that libraries raised, without the libraries' own texts.

Those texts may contain what was sent: h11 quotes an illegal header, even ``Authorization``, and an invalid URL is
quoted with its password. Messages, events, statuses and logs are read by people who must not know such secrets. So
only the operating system's text is passed on, otherwise the kind of error.
"""

from __future__ import annotations

import os
import socket
import ssl
import traceback
from typing import Final

__all__ = ["reason", "where_it_failed"]

_NO_ANSWER: Final = ("Timeout", "TimedOut")
_KINDS: Final = (
    # Parts of the names of exceptions of httpx, httpcore, aiohttp and redis; the first match is used.
    (("LocalProtocol", "InvalidHeader"), "the request holds what HTTP doesn't allow, such as a line end in a token"),
    (("InvalidURL", "UnsupportedProtocol", "InvalidUrl"), "the address can't be read"),
    (("RemoteProtocol", "ServerDisconnected", "Payload", "IncompleteRead"), "the answer broke off or was no HTTP"),
    (("Proxy",), "the proxy refuses"),
    (("Decod", "JSON"), "the answer can't be read"),
    (("Authentication", "Authorization"), "wrong or missing password"),
    (("Connect", "Network"), "the connection failed"),
    (("Read", "Write", "Close"), "the connection broke off"),
)


def reason(error: BaseException) -> str:
    """Return the reason of a failure, for the middle of a sentence: ``Connection refused``, ``no answer in time``."""
    chain = _chain(error)
    for each in chain:
        if isinstance(each, TimeoutError) or any(word in type(each).__name__ for word in _NO_ANSWER):
            return "no answer in time"
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return f"no TLS connection{f': {each.reason}' if each.reason else ''}"
        if isinstance(each, socket.gaierror):
            return "the name can't be resolved"
        if isinstance(each, OSError) and each.errno and each.errno > 0:
            return os.strerror(each.errno)
    for each in chain:
        for words, said in _KINDS:
            if any(word in type(each).__name__ for word in words):
                return said
    return type(error).__name__


def where_it_failed(error: BaseException) -> str:
    """Return the traceback without the exceptions' texts, for a log."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return (
        f"Traceback (most recent call last):\n{frames}{' after '.join(type(each).__name__ for each in _chain(error))}\n"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Return the exception and those that it was raised from, innermost last."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < 10:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
