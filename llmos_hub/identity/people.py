"""The Hub's users and groups, read with the platform's own token.

A name alone doesn't identify a person: a user can be deleted, and somebody else get the name. With ``created``
it does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpcore

from llmos.errors import Unavailable

__all__ = ["HubPeople", "Person"]

_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the Hub.

    Attributes
    ----------
    created
        The time of the user's creation, as the Hub reports it; empty if unknown.
    """

    name: str
    created: str = ""


class HubPeople:
    """The users and groups of a Hub, which is asked each time. Each method raises `Unavailable` if it doesn't answer as it should.

    Parameters
    ----------
    hub_api_url
        Such as ``http://hub:8081/hub/api``.
    hub_token
        The platform's own token, with ``read:users``, ``read:servers`` and ``read:groups``.
    """

    def __init__(self, hub_api_url: str, hub_token: str) -> None:
        self._url = hub_api_url.rstrip("/")
        self._token = hub_token
        self._connections = httpcore.AsyncConnectionPool(max_connections=4, keepalive_expiry=10.0)

    async def user(self, name: str) -> Person | None:
        """Return the user of that name; None if not found."""
        found = await self._get(f"/users/{quote(name, safe='')}")
        return None if found is None else Person(str(found.get("name") or name), str(found.get("created") or ""))

    async def servers(self, name: str) -> Mapping[str, str] | None:
        """Return the start times of a user's servers by server name; None if the Hub doesn't report them."""
        found = await self._get(f"/users/{quote(name, safe='')}")
        if found is None:
            return {}
        servers = found.get("servers")
        if not isinstance(servers, Mapping):
            return None
        return {str(name): str(one.get("started") or "") for name, one in servers.items() if isinstance(one, Mapping)}

    async def has_group(self, name: str) -> bool:
        """Return whether there is a group of that name."""
        return await self._get(f"/groups/{quote(name, safe='')}") is not None

    async def has_users(self) -> bool:
        """Return whether there are any users. A Hub without users has lost its database rather than its users."""
        found = await self._get("/users?limit=1")
        return found is not None and bool(found.get("items"))

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.aclose()

    async def _get(self, path: str) -> Mapping[str, Any] | None:
        headers = [("Authorization", f"Bearer {self._token}"), ("Accept", "application/jupyterhub-pagination+json")]
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._connections.request("GET", self._url + path, headers=headers)
            data = json.loads(response.content)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, TimeoutError) as error:
            raise Unavailable(f"The Hub does not answer ({type(error).__name__}).") from error
        except ValueError as error:
            raise Unavailable("What answers at the Hub's address is not a Hub.") from error
        if response.status == 404 and isinstance(data, dict) and data.get("status") == 404:
            return None
        if response.status != 200 or not isinstance(data, dict):
            raise Unavailable(f"The Hub does not answer as it should (HTTP {response.status}).")
        return data
