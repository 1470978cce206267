"""Passwords and tokens of the platform's own parts, made once and kept in one file.

They stay the same over restarts, so that a new supervisor can adopt what an old one left running.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from llmos.errors import Unavailable

__all__ = ["Secrets", "write_private"]


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone from its first byte on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _token() -> str:
    return secrets.token_hex(32)


def _fernet_key() -> str:
    # a Fernet key is 32 random bytes in URL-safe base 64 (https://github.com/fernet/spec)
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@dataclass(frozen=True)
class Secrets:
    """What the platform's parts prove themselves with.

    Attributes
    ----------
    valkey_password
        For the embedded Valkey.
    proxy_token
        With it the Hub sets the proxy's routes.
    llmos_token, llm_token
        The Hub API tokens of the API's and the gateway's service.
    supervisor_token
        The Hub API token with which `llmos user` and `llmos token` act and routes are set anew.
    encryption_key
        The Fernet key under which Credentials lie in the store.
    """

    valkey_password: str = field(default_factory=_token)
    proxy_token: str = field(default_factory=_token)
    llmos_token: str = field(default_factory=_token)
    llm_token: str = field(default_factory=_token)
    supervisor_token: str = field(default_factory=_token)
    encryption_key: str = field(default_factory=_fernet_key)

    @classmethod
    def load(cls, path: Path) -> Secrets:
        """Read them, and make and write those that are not there yet.

        Raises
        ------
        Unavailable
            The file can't be read as what it should be; a lost encryption key must not be replaced silently.
        """
        known = {f.name for f in fields(cls)}
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            values = {key: value for key, value in stored.items() if key in known and isinstance(value, str)}
        except FileNotFoundError:
            stored, values = {}, {}
        except (OSError, ValueError, AttributeError) as exc:
            message = (
                f"{path} can't be read ({exc}). Restore it from a backup, or go on with new ones (Credentials must then be "
                "deleted and made again): llmos up --recover secrets"
            )
            raise Unavailable(message) from exc
        result = cls(**values)
        if asdict(result) != stored:
            write_private(path, json.dumps(asdict(result), indent=2) + "\n")
        return result
