"""The ``Secure`` attribute on all of the Hub's cookies if the browser uses TLS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyterhub.utils import get_browser_protocol
from tornado import httputil, web

__all__ = ["SecureCookies"]


class SecureCookies(web.OutputTransform):
    """A transform that adds ``Secure`` to cookies if a proxy in front of the Hub's own reports TLS.

    The Hub takes the protocol from Tornado, which uses the last entry of ``X-Forwarded-Proto``: "http", added by the
    Hub's own proxy, behind which there is no TLS. The first entry is the browser's. A client that sends this header
    without TLS only keeps its own cookies from itself. Used as
    ``c.JupyterHub.tornado_settings = {"transforms": [SecureCookies]}``.
    """

    def __init__(self, request: httputil.HTTPServerRequest) -> None:
        self._tls = get_browser_protocol(request) == "https"

    def transform_first_chunk(
        self, status_code: int, headers: httputil.HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, httputil.HTTPHeaders, bytes]:
        """Return headers to which Tornado then adds the cookies."""
        del finishing
        return status_code, _TlsHeaders(headers.get_all()) if self._tls else headers, chunk


class _TlsHeaders(httputil.HTTPHeaders):
    """HTTP headers that add ``Secure`` to each cookie."""

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in lines:
            self.add(name, value)

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        """Add a header line."""
        if name.lower() == "set-cookie" and "secure" not in [part.strip().lower() for part in value.split(";")[1:]]:
            value = f"{value}; Secure"
        super().add(name, value, **kwargs)
