"""``Secure`` on every cookie that the Hub sets when the browser speaks TLS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyterhub.utils import get_browser_protocol
from tornado import httputil, web

__all__ = ["SecureCookies"]


class SecureCookies(web.OutputTransform):
    """Marks cookies as for TLS alone where a proxy before the Hub's own says that the browser came by it.

    The Hub asks Tornado for the protocol, which takes the last word of ``X-Forwarded-Proto``: "http", by the Hub's own
    proxy, behind which there is no TLS. The first word is the browser's. Who writes that header without TLS keeps
    cookies from themselves only. Used as ``c.JupyterHub.tornado_settings = {"transforms": [SecureCookies]}``.
    """

    def __init__(self, request: httputil.HTTPServerRequest) -> None:
        self._tls = get_browser_protocol(request) == "https"

    def transform_first_chunk(
        self, status_code: int, headers: httputil.HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, httputil.HTTPHeaders, bytes]:
        """As Tornado asks before the headers are sent; it adds the cookies to what this returns."""
        del finishing
        return status_code, _TlsHeaders(headers.get_all()) if self._tls else headers, chunk


class _TlsHeaders(httputil.HTTPHeaders):
    """Headers whose cookies are all ``Secure``."""

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in lines:
            self.add(name, value)

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        """Add a header line."""
        if name.lower() == "set-cookie" and "secure" not in [part.strip().lower() for part in value.split(";")[1:]]:
            value = f"{value}; Secure"
        super().add(name, value, **kwargs)
