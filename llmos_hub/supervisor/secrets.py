"""Passwords and tokens of the platform's own parts, created once and stored in one file.

They don't change at a restart, so that a new supervisor can adopt the processes of an earlier one.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from llmos.errors import Unavailable
from llmos.files import write_private

__all__ = ["Secrets"]


def _token() -> str:
    return secrets.token_hex(32)


def _fernet_key() -> str:
    # a Fernet key is 32 random bytes in URL-safe base 64 (https://github.com/fernet/spec)
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _unusable(path: Path, trouble: str) -> Unavailable:
    return Unavailable(
        f"{path} {trouble}. Restore it from a backup, or continue with new ones (Credentials must then be "
        "deleted and created again): llmos up --recover secrets"
    )


@dataclass(frozen=True)
class Secrets:
    """The credentials of the platform's parts.

    Attributes
    ----------
    valkey_password
        Password of the embedded Valkey.
    proxy_token
        Token with which the Hub sets the proxy's routes.
    llmos_token, llm_token
        Hub API tokens of the API's and the gateway's service.
    supervisor_token
        Hub API token for `llmos user`, `llmos group` and `llmos token`, and for setting routes after a restart of the
        proxy.
    encryption_key
        Fernet key with which Credentials are encrypted in the store.
    """

    valkey_password: str = field(default_factory=_token)
    proxy_token: str = field(default_factory=_token)
    llmos_token: str = field(default_factory=_token)
    llm_token: str = field(default_factory=_token)
    supervisor_token: str = field(default_factory=_token)
    encryption_key: str = field(default_factory=_fernet_key)

    @classmethod
    def load(cls, path: Path) -> Secrets:
        """Read the secrets, and create and store those that are missing.

        Raises
        ------
        Unavailable
            The file can't be read or parsed, or has no encryption key; a lost one must not be replaced silently.
        """
        known = {f.name for f in fields(cls)}
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            values = {key: value for key, value in stored.items() if key in known and isinstance(value, str)}
        except FileNotFoundError:
            stored, values = {}, {}
        except (OSError, ValueError, AttributeError) as exc:
            raise _unusable(path, f"can't be read ({exc})") from exc
        else:
            if "encryption_key" not in values:
                raise _unusable(path, "has lost its encryption_key")
        result = cls(**values)
        if asdict(result) != stored:
            write_private(path, json.dumps(asdict(result), indent=2) + "\n")
        return result
