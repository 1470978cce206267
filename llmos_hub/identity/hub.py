"""Authentication with Hub tokens: the Hub is asked for a token's owner and scopes.

``GET /hub/api/user`` with the caller's own token answers for every valid token, however narrow, with the
owner's name, groups and whether they are an admin, and the token's scopes in expanded form
(https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html). The Hub answers about 450 of these
requests a second, so answers are cached for a few seconds; a revoked token still works for that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpcore

from llmos.errors import Forbidden, TooManyRequests, Unauthorized, Unavailable
from llmos_hub.identity.cache import TokenCache, fingerprint
from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from llmos_hub.policy import Caller, Rights
from llmos_hub.tasks import cancel

if TYPE_CHECKING:  # a process that shares nothing needn't load the database client
    from llmos_hub.identity.shared import SharedIdentities

__all__ = ["HubIdentity"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}")
"""The characters of a bearer token (RFC 6750, b64token); the Hub's own are 32 or 64 characters long."""
_TIMEOUT: Final = 3.0
_NEGATIVE_TTL: Final = 3.0
_REMEMBERED: Final = 10_000
_AT_ONCE: Final = 8
"""Maximum number of concurrent requests to the Hub, for tokens seen before and for new ones each."""
_WAITING: Final = 256
"""Maximum number of new tokens that wait for their turn; more are refused."""
_PAUSE: Final = 2.0
"""Seconds between two attempts while the Hub doesn't answer."""

_NO_ANSWER: Final = (
    httpcore.NetworkError,
    TimeoutError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ValueError,
)
_UNKNOWN_TOKEN = "The Hub doesn't know this token (any more). Make a new one on the Hub's token page."  # noqa: S105 - a message


class HubIdentity:
    """An identity provider that asks the Hub, and uses cached answers for up to an hour while the Hub is unreachable.

    Parameters
    ----------
    hub_api_url
        Such as ``http://127.0.0.1:8081/hub/api``.
    hub_token
        The service's own token, for fields that a Hub omits in its answer to the caller's.
    ttl
        Seconds for which an answer is used without asking again.
    stale_for
        Seconds for which the last identity is used while the Hub can't be reached; never after a refusal.
    clock
        A monotonic clock in seconds; tests pass their own.
    shared
        The store in which processes of the same kind share what the Hub answered; if None, nothing is shared.
    """

    def __init__(
        self,
        hub_api_url: str,
        hub_token: str,
        *,
        ttl: float = 10.0,
        stale_for: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedIdentities | None = None,
    ) -> None:
        self._ttl, self._shared = ttl, shared
        self._cache = TokenCache(ttl=ttl, negative_ttl=min(ttl, _NEGATIVE_TTL), stale_for=stale_for, size=_REMEMBERED)
        self._clock = clock
        self._hub_token = hub_token
        self._flights: dict[bytes, asyncio.Task[Rights]] = {}
        self._returning = asyncio.Semaphore(_AT_ONCE)
        self._new = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._retry_at = 0.0  # the time before which a Hub that did not answer isn't asked again; 0: it answers
        self._hub_api_url = hub_api_url.rstrip("/")
        # Not httpx, which takes 5 MB and a tenth of a second to import. Nor does httpcore use a proxy from the
        # environment, which would see every token.
        self._connections = httpcore.AsyncConnectionPool(
            max_connections=2 * _AT_ONCE + 2, max_keepalive_connections=2 * _AT_ONCE, keepalive_expiry=30.0
        )

    async def authenticate(self, token: str) -> Rights:
        """Return the caller whose token it is, with their rights.

        Raises
        ------
        Unauthorized
            The token is unknown, no longer valid or malformed.
        Forbidden
            It is the token of a service: services aren't people and have no resources.
        Unavailable
            The Hub doesn't answer, and no recent answer is cached.
        TooManyRequests
            There are more unknown tokens than the Hub can be asked about.
        """
        if not _TOKEN.fullmatch(token):
            raise Unauthorized("This is not a token of the Hub. Make one on the Hub's token page.")
        key = fingerprint(token)
        now = self._clock()
        rights = self._cache.fresh(key, now)
        if rights is not None:
            return rights
        stale = self._cache.stale(key, now)
        if self._retry_at:
            if now < self._retry_at:
                return await self._without_hub(key, token)
            # One request finds out whether the Hub is back; all others continue without it meanwhile.
            self._retry_at = now + _TIMEOUT + _PAUSE
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._ask(key, token, returning=stale is not None))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        try:
            # A caller that is cancelled must not cancel the request for the others that wait for it.
            return await asyncio.shield(flight)
        except Unavailable:
            return await self._without_hub(key, token)

    async def answers(self) -> bool:
        """Return whether the Hub answers. No token is needed: its API shows its version to everybody."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._connections.request("GET", f"{self._hub_api_url}/")
            return "version" in _object(response)
        except _NO_ANSWER:
            return False

    async def close(self) -> None:
        """Close all connections."""
        await cancel(*self._flights.values())
        await self._connections.aclose()
        if self._shared is not None:
            await self._shared.close()

    def _landed(self, key: bytes, flight: asyncio.Task[Rights]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # retrieved, even if nobody waits for it any more: asyncio would log it otherwise

    async def _without_hub(self, key: bytes, token: str) -> Rights:
        stale = self._cache.stale(key, self._clock())
        if stale is None and self._shared is not None:
            stale = await self._find_shared(key, token)
        if stale is not None:
            return stale
        raise Unavailable("The Hub does not answer, so this token can't be checked. Try again in some seconds.")

    async def _find_shared(self, key: bytes, token: str) -> Rights | None:
        """Return the rights of the caller that another process cached for the token within the hour; None if unknown."""
        assert self._shared is not None
        async with self._turn(returning=False):
            known = self._cache.stale(key, self._clock())
            if known is not None:
                return known
            found = await self._shared.find(token)
        if found is None:
            return None
        caller, age = found
        self._cache.remember(key, caller, self._clock() - max(age, self._ttl))
        return self._cache.stale(key, self._clock())

    async def _ask(self, key: bytes, token: str, *, returning: bool) -> Rights:
        async with self._turn(returning=returning):
            try:
                try:
                    user = await self._get("/user", token)
                except Unauthorized:
                    await self._confirm_refusal(token, returning=returning)
                    raise
                caller = await self._caller(user)
            except (Unauthorized, Forbidden) as error:
                self._cache.refuse(key, error, self._clock())
                if self._shared is not None:
                    self._shared.forget(token)
                raise
        rights = self._cache.remember(key, caller, self._clock())
        if self._shared is not None:
            self._shared.share(token, caller)
        return rights

    async def _confirm_refusal(self, token: str, *, returning: bool) -> None:
        """Check that a refusal is meant, and not the effect of a broken Hub.

        A Hub that can't write, because its disk is full, refuses every token whose last use it would have to record.
        So it is asked whether it accepts the platform's own token. It may have recorded the use of that one just now,
        which it does every half minute; so for a token that was valid before it must also answer that it doesn't know
        the token. JupyterHub doesn't log the token in that URL.

        Raises
        ------
        Unavailable
            The Hub answers something else.
        """
        accepted = await self._status("/user")
        if accepted == 200 and returning:
            accepted = 200 if await self._status(f"/authorizations/token/{quote(token, safe='')}") == 404 else 0
        if accepted != 200:
            raise Unavailable(
                "The Hub refuses tokens that it knows, or the platform's own: its disk may be full. The Hub's log says more."
            )

    async def _status(self, path: str) -> int:
        """Return the status of the answer to a request with the platform's own token."""
        return (await self._request(path, self._hub_token)).status

    async def _request(self, path: str, token: str) -> httpcore.Response:
        headers = [("Authorization", f"Bearer {token}"), ("Accept", "application/json")]
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._connections.request("GET", self._hub_api_url + path, headers=headers)
        except _NO_ANSWER as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> Unavailable:
        self._retry_at = self._clock() + _PAUSE
        return Unavailable(f"The Hub does not answer as it should ({type(error).__name__}).")

    @contextlib.asynccontextmanager
    async def _turn(self, *, returning: bool) -> AsyncIterator[None]:
        """Wait for a turn to ask the Hub; tokens that were valid before have their own queue."""
        if returning:
            async with self._returning:
                yield
            return
        if self._waiting >= _WAITING:
            raise TooManyRequests("Too many unknown tokens are being checked. Try again in a second.")
        self._waiting += 1
        try:
            async with self._new:
                yield
        finally:
            self._waiting -= 1

    async def _get(self, path: str, token: str) -> Mapping[str, Any]:
        response = await self._request(path, token)
        if response.status in (401, 403):
            self._retry_at = 0.0
            raise Unauthorized(_UNKNOWN_TOKEN)
        try:
            body = _object(response)
        except ValueError as error:
            raise self._no_answer(error) from error
        self._retry_at = 0.0
        return body

    async def _caller(self, user: Mapping[str, Any]) -> Caller:
        name = str(user.get("name") or "")
        if user.get("kind") != "user" or not name:
            raise Forbidden(
                f'This token belongs to the Hub\'s service "{name[:80]}". LLMOS serves people: use a token of a user.'
            )
        if "admin" not in user or "groups" not in user:
            user = {**user, **await self._owner(name)}
        return Caller(
            name=name,
            admin=user.get("admin") is True,
            groups=frozenset(str(g) for g in user.get("groups") or ()),
            scopes=_scopes(name, user.get("scopes") or ()),
        )

    async def _owner(self, name: str) -> Mapping[str, Any]:
        """Return the owner's ``admin`` and ``groups``, read with the platform's own token; scopes belong to the token."""
        try:
            owner = await self._get(f"/users/{quote(name, safe='')}", self._hub_token)
        except Unauthorized as error:
            raise Unavailable("The Hub refuses the platform's own token. Is the service llmos configured?") from error
        return {"admin": owner.get("admin") is True, "groups": owner.get("groups") or ()}


def _object(response: httpcore.Response) -> Mapping[str, Any]:
    """Return the JSON object of a successful response; otherwise raise ValueError."""
    body = json.loads(response.content) if response.status == 200 else None
    if not isinstance(body, dict):
        raise ValueError(f"HTTP {response.status}")  # noqa: TRY004 - one kind of error for all invalid answers
    return body


def _scopes(owner: str, reported: Any) -> frozenset[str]:
    """Return the platform's scopes among those that the Hub reports.

    The Hub writes ``custom:llmos:invoke``, or ``custom:llmos:invoke!user=ada`` where the token was made with
    a filter. A filter for anything but the owner gives nothing here.
    """
    ours = (SCOPE_MANAGE, SCOPE_INVOKE)
    return frozenset(s for s in ours if s in reported or f"{s}!user={owner}" in reported)
