"""A client of the Hub's REST API for the commands: users, groups, passwords, tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llmos.errors import Forbidden, Invalid, NotFound, Unavailable
from llmos.files import write_private
from llmos_hub.names import API_PREFIX, GATEWAY_PREFIX, SCOPE_INVOKE, SCOPE_MANAGE, DataDir
from llmos_hub.processes.http import http_request
from llmos_hub.supervisor.plan import UpOptions
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.state import read_json

__all__ = ["HubApi", "ensure_client_file", "renew_client_token", "token_scopes"]

_CLIENT_NOTE = "llmos CLI on the platform's own machine"


def token_scopes(*, invoke_only: bool = False) -> list[str]:
    """Return the scopes of a token for LLMOS: call models, and unless `invoke_only` use the API as its owner."""
    scopes = [SCOPE_INVOKE, f"access:services!service={GATEWAY_PREFIX.rpartition('/')[2]}"]
    if not invoke_only:
        scopes += [SCOPE_MANAGE, f"access:services!service={API_PREFIX.rpartition('/')[2]}"]
    return scopes


@dataclass(frozen=True)
class HubApi:
    """The Hub's REST API.

    Attributes
    ----------
    url
        Base URL: ``http://127.0.0.1:8000/hub/api``.
    token
        The API token.
    """

    url: str
    token: str

    async def call(self, method: str, path: str, content: Any = None) -> Any:
        """Send one request; return the decoded answer.

        Raises
        ------
        Unavailable
            The Hub doesn't answer, or with a server error.
        NotFound, Forbidden, Invalid
            The Hub refuses the request; the message is the Hub's.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = b"" if content is None else json.dumps(content).encode()
        try:
            answer = await http_request(self.url + path, method=method, headers=headers, body=body, timeout=20.0)
        except OSError as exc:
            site = self.url.removesuffix("/hub/api")
            raise Unavailable(
                f"The Hub at {site} does not answer. Is LLMOS running? Look: llmos status. Start it: llmos up"
            ) from exc
        try:
            decoded = json.loads(answer.body) if answer.body else None
        except ValueError:
            decoded = None
        if 200 <= answer.status < 300:
            return decoded
        reason = decoded.get("message") if isinstance(decoded, dict) else None
        reason = str(reason or f"The Hub answered {method} {path} with HTTP {answer.status}.")
        if answer.status == 404:
            raise NotFound(reason)
        if answer.status in (401, 403):
            raise Forbidden(reason)
        if answer.status >= 500:
            raise Unavailable(f"{reason} Its log says more: llmos status shows where it is.")
        raise Invalid(reason)

    async def one_time_password(self, user: str, **options: bool) -> dict[str, Any]:
        """Set a generated one-time password.

        Parameters
        ----------
        user
            Name of the user.
        options
            ``create`` creates the user, who must not exist yet; ``admin`` makes the new user an admin; ``inherit``
            allows the name of a former user, with all that is left under it; ``stop_servers`` stops the user's servers.

        Returns
        -------
        dict
            ``name`` as the Hub stores it, ``password``, and for an existing user ``tokens_ended`` and ``servers_left``.
        """
        answer: dict[str, Any] = await self.call("POST", f"/llmos/users/{quote(user, safe='')}/password", options)
        return answer

    async def people(self) -> list[dict[str, Any]]:
        """Return all users: ``name``, ``admin``, ``password`` (none, one-time, expired, own), ``servers``."""
        answer: list[dict[str, Any]] = await self.call("GET", "/llmos/users")
        return answer

    async def make_group(self, name: str, *, inherit: bool = False) -> None:
        """Create a group; with `inherit` also under the name of a former one."""
        await self.call("POST", f"/llmos/groups/{quote(name, safe='')}", {"inherit": inherit})

    async def delete(self, user: str) -> None:
        """Delete a user and stop their servers."""
        await self.call("DELETE", f"/users/{quote(user, safe='')}")

    async def mint(self, user: str, *, note: str, scopes: list[str], expires_in: int | None = None) -> str:
        """Create a token for a user."""
        content = {"note": note, "scopes": scopes, "expires_in": expires_in}
        answer = await self.call("POST", f"/users/{quote(user, safe='')}/tokens", content)
        return str(answer["token"])

    async def accepts(self, token: str) -> bool:
        """Return whether the Hub accepts a token."""
        try:
            await HubApi(self.url, token).call("GET", "/user")
        except (Forbidden, NotFound):
            return False
        return True


async def renew_client_token(data_dir: DataDir, hub: HubApi) -> None:
    """Write a new token into the client file: a new password or a new account of the first admin has ended the old one."""
    stored = json.loads(data_dir.client.read_text(encoding="utf-8"))
    token = await hub.mint(stored["user"], note=_CLIENT_NOTE, scopes=token_scopes())
    write_private(data_dir.client, json.dumps({**stored, "token": token}, indent=2) + "\n")


async def ensure_client_file(options: UpOptions, secrets: Secrets) -> None:
    """Write addresses and a token for the CLI of the platform's own account, if they are missing or have changed."""
    path = options.data_dir.client
    stored = read_json(path)
    hub = HubApi(f"{options.hub_url}/hub/api", secrets.supervisor_token)
    token = stored.get("token")
    if not token or not await hub.accepts(token):
        token = await hub.mint(options.admin, note=_CLIENT_NOTE, scopes=token_scopes())
    content = {
        "url": options.hub_url + API_PREFIX,
        "gateway_url": options.gateway_url,
        "hub_url": options.hub_url,
        "user": options.admin,
        "token": token,
    }
    if content != stored:
        write_private(path, json.dumps(content, indent=2) + "\n")
