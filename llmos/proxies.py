"""Exceptions to web proxies: the platform's own hosts are contacted directly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

__all__ = ["CLUSTER_HOSTS", "LOOPBACK_HOSTS", "hosts_of", "invalid_proxy", "proxy_advice", "with_no_proxy"]

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""Names and addresses of the local machine."""
CLUSTER_HOSTS: Final = (*LOOPBACK_HOSTS, ".svc", ".cluster.local")
"""Local addresses, and domains of a cluster's own DNS: the Services of all namespaces."""

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_SCHEMES: Final = frozenset(("http", "https", "socks5", "socks5h"))
_NAMES: Final = ("NO_PROXY", "no_proxy")  # programs read one or the other


def with_no_proxy(environment: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    """Return the environment with hosts added to ``NO_PROXY`` if it configures a proxy.

    Parameters
    ----------
    environment
        Variables by name; returned unchanged if none of them configures a proxy.
    hosts
        Host names, domains with a leading dot, addresses, or ranges of addresses.

    Examples
    --------
    >>> with_no_proxy({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "example.org"}, ["localhost"])["NO_PROXY"]
    'example.org,localhost'
    """
    found = dict(environment)
    if not any(value for name, value in environment.items() if name.lower() in _PROXIES):
        return found
    theirs = [host.strip() for name in _NAMES for host in environment.get(name, "").split(",")]
    value = ",".join(dict.fromkeys(host for host in (*theirs, *hosts) if host))
    return found | dict.fromkeys(_NAMES, value)


def proxy_advice(environment: Mapping[str, str]) -> str:
    """Return what to do about a proxy when a host on the internet can't be reached.

    >>> proxy_advice({}), proxy_advice({"https_proxy": "http://proxy:3128"})
    ('Behind a proxy, set HTTPS_PROXY', 'https_proxy is set: check that proxy')
    """
    names = [name for name, value in environment.items() if value and name.lower() in ("https_proxy", "all_proxy")]
    return f"{names[0]} is set: check that proxy" if names else "Behind a proxy, set HTTPS_PROXY"


def hosts_of(*urls: str) -> list[str]:
    """Return the host of each address that has one.

    >>> hosts_of("http://llmos-api.llmos.svc/services/llmos", "")
    ['llmos-api.llmos.svc']
    """
    return [host for url in urls if (host := urlsplit(url).hostname)]


def invalid_proxy(environment: Mapping[str, str]) -> str | None:
    """Return the name of a variable that should configure a proxy but isn't an address; None if there is none.

    The value may contain a password, so it belongs in no message.

    >>> invalid_proxy({"HTTPS_PROXY": "http://proxy:port"})
    'HTTPS_PROXY'
    """
    for name, value in environment.items():
        if value and name.lower() in _PROXIES and not _is_proxy(value):
            return name
    return None


def _is_proxy(value: str) -> bool:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that don't match, or a port that is no number
        return False
