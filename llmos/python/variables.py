"""Environment variables that steer Python, pip, uv, npm and Node, and which of them programs may inherit."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["without_tool_settings"]

_TOOLS = ("PYTHON", "PIP_", "UV_", "NPM_CONFIG_", "NODE_", "JUPYTER", "IPYTHON", "VIRTUAL_ENV", "COREPACK_")
"""Prefixes of variables by which these programs, and those they start, learn where to write and what to load."""
_KEPT = frozenset(
    {
        # where packages come from, how to get there, and where downloads are kept
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST"),
        *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_CACHE_DIR", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"),
        *("PIP_RETRIES", "PIP_CONFIG_FILE", "PIP_KEYRING_PROVIDER"),
        *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY", "UV_FIND_LINKS"),
        *("UV_NO_INDEX", "UV_OFFLINE", "UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"),
        *("UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_KEYRING_PROVIDER", "UV_LINK_MODE"),
        *("UV_CONCURRENT_DOWNLOADS", "UV_CONCURRENT_INSTALLS", "UV_NO_CONFIG"),
        *("NPM_CONFIG_REGISTRY", "NPM_CONFIG_CACHE", "NPM_CONFIG_CAFILE", "NPM_CONFIG_CA", "NPM_CONFIG_PROXY"),
        *("NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_NOPROXY", "NPM_CONFIG_STRICT_SSL", "NPM_CONFIG_USERCONFIG"),
        *("NPM_CONFIG_GLOBALCONFIG", "NODE_EXTRA_CA_CERTS"),
    }
)


def without_tool_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that misdirect these tools, such as ``PYTHONPATH`` or ``PIP_TARGET``.

    Variables about the source of packages stay: indexes, certificates, proxies, caches, and credentials of an index
    (``UV_INDEX_NAME_PASSWORD``).
    """
    return {name: value for name, value in environ.items() if _is_kept(name.upper())}


def _is_kept(name: str) -> bool:
    if not name.startswith(_TOOLS) or name in _KEPT:
        return True
    return name.startswith(("UV_INDEX_", "NPM_CONFIG_//"))
