"""``llmos user`` and ``llmos token``: people, passwords and tokens, for the one who runs the platform."""

from __future__ import annotations

import asyncio
import json
import re
import sys

from llmos.errors import Forbidden, NotFound, UsageError
from llmos_hub.names import DataDir
from llmos_hub.supervisor.hub_api import HubApi, token_scopes
from llmos_hub.supervisor.secrets import Secrets, make_password

__all__ = ["add_user", "parse_span", "reset_password", "token"]

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_span(text: str) -> int | None:
    """Seconds: ``12h``, ``30d``; None for nothing.

    Raises
    ------
    UsageError
        It can't be read.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if not found or int(found[1]) == 0:
        raise UsageError(f'--expires: "{text[:20]}" is not a time span. Say 30m, 12h, 30d or 4w.')
    return int(found[1]) * _UNITS[found[2]]


def _hub(data_dir: DataDir) -> tuple[HubApi, str]:
    """The Hub of a data directory, and its first admin."""
    try:
        client = json.loads(data_dir.client.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise NotFound(
            f"No platform has run in {data_dir.root} so far. Start one: llmos up. Or say where it is: --data-dir DIR"
        ) from None
    return HubApi(f"{client['hub_url']}/hub/api", Secrets.load(data_dir.secrets).supervisor_token), client["user"]


def add_user(data_dir: DataDir, name: str, *, admin: bool) -> int:
    """Make a person, print a one-time password."""
    hub, _ = _hub(data_dir)
    password = make_password()
    asyncio.run(hub.set_password(name, password, one_time=True, create=True, admin=admin))
    kind = "admin" if admin else "user"
    sys.stdout.write(f"{name} is made ({kind}). One-time password, shown once:\n{password}\n")
    return 0


def reset_password(data_dir: DataDir, name: str) -> int:
    """Set a new one-time password, print it."""
    hub, _ = _hub(data_dir)
    password = make_password()
    asyncio.run(hub.set_password(name, password, one_time=True))
    sys.stdout.write(f"New one-time password for {name}, shown once:\n{password}\n")
    return 0


def token(data_dir: DataDir, *, user: str, invoke_only: bool, expires: str, note: str) -> int:
    """Make a token, print it alone on a line, so that a script can take it."""
    span = parse_span(expires)
    hub, admin = _hub(data_dir)
    scopes = token_scopes(invoke_only=invoke_only)
    try:
        made = asyncio.run(hub.mint(user or admin, note=note or "llmos token", scopes=scopes, expires_in=span))
    except Forbidden as exc:
        # we may mint for everybody: so the Hub answers where there is nobody of that name
        raise NotFound(f'There is no user "{user or admin}". Make one: llmos user add {user or admin}') from exc
    sys.stdout.write(f"{made}\n")
    return 0
