"""Discovery of the platform's addresses and tokens.

In this order: the caller's arguments; the environment, which the platform sets in every server that it spawns
(``LLMOS_URL`` with ``LLMOS_TOKEN`` or ``JUPYTERHUB_API_TOKEN``; ``OPENAI_BASE_URL`` with ``OPENAI_API_KEY`` for
models); the file ``client.json`` that ``llmos up`` writes to its data directory for the user who runs it.

A token is sent only to the address that it belongs to: never the file's token to an address from elsewhere, nor a
server's own token to an address other than ``LLMOS_URL``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmos.errors import NotConfigured

__all__ = ["Configuration", "client_file", "data_dir", "load"]

_API_SUFFIX = "/services/llmos"
_GATEWAY_SUFFIX = "/services/llm/v1"


@dataclass(frozen=True)
class Configuration:
    """Addresses and tokens of the platform.

    Attributes
    ----------
    url
        Address of the API, such as ``http://127.0.0.1:8000/services/llmos``; empty if only the gateway is known.
    token
        Bearer token for the API; never shown.
    gateway_url
        Address of the gateway with ``/v1``, such as ``http://127.0.0.1:8010/v1``; empty if unknown.
    gateway_token
        Bearer token for the gateway; never shown.
    source
        Source of `url`, for messages.
    """

    url: str = ""
    token: str = field(default="", repr=False)
    gateway_url: str = ""
    gateway_token: str = field(default="", repr=False)
    source: str = ""

    def require_api(self) -> None:
        """Raise an error unless the API's address and a token are known.

        Raises
        ------
        NotConfigured
            The address or the token is missing; the message says what to set.
        """
        if not self.url:
            raise NotConfigured(
                "No address of LLMOS is known here. Start it on this machine with: make up. "
                "For one elsewhere set LLMOS_URL (such as https://hub.example.org/services/llmos) and LLMOS_TOKEN."
            )
        if not self.token:
            raise NotConfigured(
                f"There is no token for {self.url} (known from {self.source}). "
                "Set LLMOS_TOKEN; make one on the Hub's token page or with: llmos token"
            )

    def require_gateway(self) -> None:
        """Raise an error unless the gateway's address and a token are known.

        Raises
        ------
        NotConfigured
            The address or the token is missing; the message says what to set.
        """
        if not self.gateway_url:
            raise NotConfigured(
                "No address of LLMOS's gateway is known here. Start LLMOS on this machine with: make up. "
                "For one elsewhere set OPENAI_BASE_URL (such as https://hub.example.org/services/llm/v1) and OPENAI_API_KEY."
            )
        if not self.gateway_token:
            raise NotConfigured(
                f"There is no token for the gateway at {self.gateway_url}. "
                "Set OPENAI_API_KEY; make one on the Hub's token page or with: llmos token"
            )


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return ``LLMOS_DATA_DIR``, otherwise ``/var/lib/llmos`` for root and ``~/.local/share/llmos`` for others."""
    if configured := environ.get("LLMOS_DATA_DIR"):
        return Path(configured).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/llmos")
    return Path(environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "llmos"


def client_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file that ``llmos up`` writes for its owner's clients: ``DATA_DIR/client.json``."""
    return data_dir(environ) / "client.json"


def _read_file(path: Path) -> dict[str, str]:
    """Return the file's addresses and token; empty if the file doesn't exist."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError:
        message = f"{path} belongs to somebody else and can't be read. Set LLMOS_URL and LLMOS_TOKEN instead."
        raise NotConfigured(message) from None
    except (OSError, ValueError):
        raise NotConfigured(f"{path} can't be read. `llmos up` writes it again at its next start.") from None
    if not isinstance(data, dict):
        raise NotConfigured(f"{path} holds no addresses. `llmos up` writes it again at its next start.")
    return {key: value for key, value in data.items() if isinstance(value, str)}


def _checked_url(url: str, where: str) -> str:
    url = url.strip().rstrip("/")
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        secret = parts.password is not None or parts.username is not None
        _ = parts.port
    except ValueError:
        valid = secret = False
    if secret:
        raise NotConfigured(f"{where}: the address carries a password. Leave it out and set LLMOS_TOKEN.")
    if not valid:
        raise NotConfigured(f'{where}: "{url[:120]}" is not an address such as http://127.0.0.1:8000{_API_SUFFIX}')
    return url


def _checked_token(token: str, where: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise NotConfigured(f"{where} is not a token: it holds blanks or characters that no token has.")
    return token


def _token_from_environment(environ: Mapping[str, str], url: str) -> str:
    """Return the server's own token if `url` is the address that it belongs to, else an empty string."""
    if url and url == environ.get("LLMOS_URL", "").strip().rstrip("/"):
        return _checked_token(environ.get("JUPYTERHUB_API_TOKEN", ""), "JUPYTERHUB_API_TOKEN")
    return ""


def load(
    *,
    url: str | None = None,
    token: str | None = None,
    gateway_url: str | None = None,
    gateway_token: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Configuration:
    """Find addresses and tokens; those not found are empty (see `Configuration.require_api`).

    Parameters
    ----------
    url, token
        Address of the API and a token for it, which take precedence over the environment.
    gateway_url, gateway_token
        Address of the gateway, with ``/v1``, and a token for it.
    environ
        The environment variables; by default the process's own.

    Raises
    ------
    NotConfigured
        A setting is invalid; the message names it and never contains a token.
    """
    path = client_file(environ)
    found_url, source = _checked_url(url or "", "url"), "the argument url"
    if not found_url:
        found_url, source = _checked_url(environ.get("LLMOS_URL", ""), "LLMOS_URL"), "LLMOS_URL"
    file = {} if found_url else _read_file(path)
    if not found_url and file.get("url"):
        found_url, source = _checked_url(file["url"], str(path)), str(path)

    found_token = (
        _checked_token(token or "", "token")
        or _checked_token(environ.get("LLMOS_TOKEN", ""), "LLMOS_TOKEN")
        or _checked_token(file.get("token", ""), str(path))
        or _token_from_environment(environ, found_url)
    )
    gateway, gateway_key = _gateway(environ, file, found_url, found_token, explicit=gateway_url)
    return Configuration(
        url=found_url,
        token=found_token,
        gateway_url=gateway,
        gateway_token=_checked_token(gateway_token or "", "gateway_token") or gateway_key,
        source=source if found_url else "",
    )


def _gateway(
    environ: Mapping[str, str], file: Mapping[str, str], url: str, token: str, *, explicit: str | None
) -> tuple[str, str]:
    """Return the gateway's address and token."""
    key = _checked_token(environ.get("OPENAI_API_KEY", ""), "OPENAI_API_KEY")
    base = environ.get("OPENAI_BASE_URL", "")
    if explicit:
        same = explicit.rstrip("/") == base.strip().rstrip("/")
        return _checked_url(explicit, "gateway_url"), (key if same else token)
    # a shell's OPENAI_BASE_URL may point anywhere, so client.json takes precedence over it
    if file:
        address = _checked_url(file.get("gateway_url", ""), "gateway_url in client.json").removesuffix("/v1")
        return (f"{address}/v1" if address else "", token)
    if base and (not url or url == environ.get("LLMOS_URL", "").strip().rstrip("/")):
        return _checked_url(base, "OPENAI_BASE_URL"), key or token
    if url.endswith(_API_SUFFIX):
        return url.removesuffix(_API_SUFFIX) + _GATEWAY_SUFFIX, token
    return "", token
