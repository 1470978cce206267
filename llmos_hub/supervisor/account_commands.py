"""The commands ``llmos user``, ``llmos group`` and ``llmos token``, for the account that runs the platform."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from llmos.errors import Conflict, Forbidden, NotFound, Unavailable, UsageError
from llmos.names import group_namespace, user_namespace
from llmos.resources import MAIN_KIND
from llmos_hub.names import DataDir
from llmos_hub.supervisor.disk import refuse_full
from llmos_hub.supervisor.hub_api import HubApi, renew_client_token, token_scopes
from llmos_hub.supervisor.platform_mark import is_copy, location_of
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.state import StateFiles, read_json
from llmos_hub.supervisor.status import where_to_look

__all__ = ["add_group", "add_user", "delete_user", "list_users", "parse_span", "reset_password", "token"]

T = TypeVar("T")

_HOLDS: Final = "One-time password, shown once, for a week:"
_STATES: Final = {
    "none": "none (can't log in)",
    "one-time": "one-time, not used yet",
    "expired": "one-time, expired",
    "own": "their own",
}

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_span(text: str) -> int | None:
    """Return the seconds of a time span such as ``12h`` or ``30d``; None for ``never`` and an empty text.

    Raises
    ------
    UsageError
        The text is not a time span.
    """
    if text in ("", "never"):
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if not found or int(found[1]) == 0:
        raise UsageError(f'--expires: "{text[:20]}" is not a time span. Say 30m, 12h, 30d, 4w or never.')
    return int(found[1]) * _UNITS[found[2]]


def _hub(data_dir: DataDir) -> tuple[HubApi, str]:
    """Return the Hub of a data directory, and the name of its first admin.

    Raises
    ------
    NotFound
        No platform has run there.
    Conflict
        It is a copy that has not been started.
    """
    client = read_json(data_dir.client)
    if not client:
        raise NotFound(f"No platform has run in {data_dir.root} so far. {where_to_look(os.environ)}")
    before = StateFiles(data_dir).place
    if is_copy(before, location_of(data_dir.root)):  # the addresses and the secrets in it are the original's
        raise Conflict(
            f"{data_dir.root} is a copy of {before['path']} and has not been started: this would change the original's "
            "users. Start it first: llmos up"
        )
    return HubApi(f"{client['hub_url']}/hub/api", Secrets.load(data_dir.secrets).supervisor_token), client["user"]


def _ask(data_dir: DataDir, request: Coroutine[Any, Any, T]) -> T:
    """Return the answer to a request to the Hub.

    Raises
    ------
    Unavailable
        The Hub refuses it or fails, and the disk is full: a Hub that can't write refuses even its own platform's token.
    """
    try:
        return asyncio.run(request)
    except (Forbidden, Unavailable):
        refuse_full(data_dir.root)
        raise


def _user_name(name: str) -> str:
    """Return the name as the Hub normalizes it.

    Raises
    ------
    UsageError
        The name is empty.
    """
    found = name.strip().lower()
    if not found:
        raise UsageError("A user needs a name: llmos user add ada")
    return found


async def _one_time_password(data_dir: DataDir, name: str, **options: bool) -> dict[str, Any]:
    """Set a one-time password; see `HubApi.one_time_password`."""
    wanted = _user_name(name)
    hub, first = _hub(data_dir)
    made = await hub.one_time_password(wanted, **options)
    if made["name"] == first:
        await renew_client_token(data_dir, hub)
    return made


def add_user(data_dir: DataDir, name: str, *, admin: bool, inherit: bool = False) -> int:
    """Create a user and print a one-time password."""
    made = _ask(data_dir, _one_time_password(data_dir, name, create=True, admin=admin, inherit=inherit))
    kind = "admin" if admin else "user"
    renamed = (
        f'"{name.strip()}" logs in as {made["name"]}: names are in small letters. ' if made["name"] != name else ""
    )
    sys.stdout.write(f"{made['name']} is made ({kind}). {renamed}{_HOLDS}\n{made['password']}\n")
    return 0


def add_group(data_dir: DataDir, name: str, *, inherit: bool = False) -> int:
    """Create a group of the Hub; its members are added on the Hub's admin page."""
    wanted = name.strip()
    if not wanted:
        raise UsageError("A group needs a name: llmos group add vision")
    hub, _ = _hub(data_dir)
    _ask(data_dir, hub.make_group(wanted, inherit=inherit))
    with_it = ", with what is there" if inherit else ""
    sys.stdout.write(
        f"The group {wanted} is made. Its members share the namespace {group_namespace(wanted)}{with_it}; add them: "
        f"{hub.url.removesuffix('/api')}/admin#/groups\n"
    )
    return 0


def reset_password(data_dir: DataDir, name: str, *, stop_servers: bool = False) -> int:
    """Set a new one-time password and print it."""
    made = _ask(data_dir, _one_time_password(data_dir, name, stop_servers=stop_servers))
    sys.stdout.write(f"New password for {made['name']}. {_HOLDS}\n{made['password']}\n")
    tokens, left = made["tokens_ended"], made["servers_left"]
    lines = [f"Logged out everywhere, {tokens} token{'s' if tokens != 1 else ''} deleted."]
    if left:
        lines.append(
            f"{len(left)} server{'s' if len(left) != 1 else ''} of {made['name']} run{'s' if len(left) == 1 else ''} on. "
            f"If somebody else may be in: llmos user password {made['name']} --stop-servers"
        )
    sys.stderr.write(" ".join(lines) + "\n")
    return 0


def list_users(data_dir: DataDir, *, as_json: bool) -> int:
    """Print all users."""
    hub, _ = _hub(data_dir)
    people = _ask(data_dir, hub.people())
    if as_json:
        sys.stdout.write(json.dumps(people, indent=2) + "\n")
        return 0
    width = max([len("NAME"), *(len(person["name"]) for person in people)])
    words = max(len(text) for text in _STATES.values())
    sys.stdout.write(f"{'NAME':<{width}}  {'ADMIN':<5}  {'PASSWORD':<{words}}  SERVERS\n")
    for person in people:
        admin = "yes" if person["admin"] else "-"
        state = _STATES.get(person["password"], person["password"])
        sys.stdout.write(f"{person['name']:<{width}}  {admin:<5}  {state:<{words}}  {person['servers']}\n")
    return 0


def delete_user(data_dir: DataDir, name: str, *, yes: bool) -> int:
    """Delete a user after asking for confirmation, and print what they leave."""
    wanted = _user_name(name)
    hub, admin = _hub(data_dir)
    if wanted == admin:
        raise Conflict(f"{admin} is this platform's first admin and can't be deleted.")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"Nothing is deleted without being asked. Say it: llmos user delete {wanted} --yes")
        sys.stdout.write(f"Delete {wanted}, with password and tokens, and stop their servers? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            sys.stdout.write("Nothing was deleted.\n")
            return 1
    try:
        _ask(data_dir, hub.delete(wanted))
    except NotFound:
        raise NotFound(f'There is no user "{wanted}". Who there is: llmos user list') from None
    namespace = user_namespace(wanted)
    sys.stdout.write(
        f"{wanted} is deleted. Their home and what is in {namespace} stay, models run on, and the name is not given again "
        f"before you say so. See it: llmos get {MAIN_KIND.plural} -n {namespace}\n"
    )
    return 0


def token(data_dir: DataDir, *, user: str, invoke_only: bool, expires: str, note: str) -> int:
    """Create a token and print it.

    Standard output has the token alone, for scripts; rights and expiry are printed to standard error.
    """
    span = parse_span(expires)
    hub, admin = _hub(data_dir)
    owner = _user_name(user) if user else admin
    scopes = token_scopes(invoke_only=invoke_only)
    try:
        made = _ask(data_dir, hub.mint(owner, note=note or "llmos token", scopes=scopes, expires_in=span))
    except Forbidden as exc:
        # our own token may create tokens for every user, so the Hub answers 403 only for an unknown user
        raise NotFound(f'There is no user "{owner}". Make one: llmos user add {owner}') from exc
    sys.stdout.write(f"{made}\n")
    sys.stdout.flush()
    may = "calls models" if invoke_only else "calls models and manages them"
    end = "until it is deleted" if span is None else f"until {datetime.fromtimestamp(time.time() + span, UTC):%Y-%m-%d}"
    sys.stderr.write(f"It {may} as {owner}, {end}. Delete it on the Hub's token page.\n")
    return 0
