"""Hub tokens: the Hub is asked whose a token is, and what it may.

``GET /hub/api/user`` with the caller's own token answers for every valid token, however narrow, with the
owner's name, groups and whether they are an admin, and the token's scopes in expanded form
(https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html). The Hub answers some 450 of these a
second, so answers are remembered for a few seconds; this is also how long a revoked token still works.
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
from llmos_hub.policy import Caller

if TYPE_CHECKING:  # who shares nothing loads no client of a database
    from llmos_hub.identity.verdicts import Verdicts

__all__ = ["HubIdentity"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}")
"""A bearer token's letters (RFC 6750, b64token); the Hub's own are 32 or 64 long."""
_TIMEOUT: Final = 3.0
_NEGATIVE_TTL: Final = 3.0
_REMEMBERED: Final = 10_000
_AT_ONCE: Final = 8
"""Requests to the Hub at once, for tokens seen before and for new ones each."""
_WAITING: Final = 256
"""New tokens that may wait for their turn; more are turned away."""
_PAUSE: Final = 2.0
"""Seconds between two tries when the Hub doesn't answer."""

_NO_ANSWER: Final = (
    httpcore.NetworkError,
    TimeoutError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ValueError,
)
_UNKNOWN_TOKEN = "The Hub doesn't know this token (any more). Make a new one on the Hub's token page."  # noqa: S105 - a message


class HubIdentity:
    """Asks the Hub, remembers for a while, and goes on for an hour when the Hub is away.

    Parameters
    ----------
    hub_api_url
        Such as ``http://127.0.0.1:8081/hub/api``.
    hub_token
        The service's own token, for what a Hub leaves out of its answer to the caller's.
    ttl
        Seconds for which an answer is believed without asking again.
    stale_for
        Seconds for which the last good answer is used while the Hub can't be reached; never after a refusal.
    clock
        Seconds that only grow; tests have their own.
    verdicts
        Where processes of the same kind tell each other what they heard; unset, each knows its own alone.
    """

    def __init__(
        self,
        hub_api_url: str,
        hub_token: str,
        *,
        ttl: float = 10.0,
        stale_for: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        verdicts: Verdicts | None = None,
    ) -> None:
        self._ttl, self._verdicts = ttl, verdicts
        self._cache = TokenCache(ttl=ttl, negative_ttl=min(ttl, _NEGATIVE_TTL), stale_for=stale_for, size=_REMEMBERED)
        self._clock = clock
        self._hub_token = hub_token
        self._flights: dict[bytes, asyncio.Task[Caller]] = {}
        self._returning = asyncio.Semaphore(_AT_ONCE)
        self._new = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._retry_at = 0.0  # not before this moment is a Hub asked that didn't answer; 0: it answers
        self._hub_api_url = hub_api_url.rstrip("/")
        # not httpx, which takes 5 MB and a tenth of a second to import; nor does this look for a proxy in the
        # environment, which would see every token
        self._connections = httpcore.AsyncConnectionPool(
            max_connections=2 * _AT_ONCE + 2, max_keepalive_connections=2 * _AT_ONCE, keepalive_expiry=30.0
        )

    async def authenticate(self, token: str) -> Caller:
        """Whose token it is.

        Raises
        ------
        Unauthorized
            Nobody's (any more), or it can't be one.
        Forbidden
            A service's: services aren't people and have no resources.
        Unavailable
            The Hub doesn't answer, and nothing recent is remembered.
        TooManyRequests
            More unknown tokens than the Hub can be asked about.
        """
        if not _TOKEN.fullmatch(token):
            raise Unauthorized("This is not a token of the Hub. Make one on the Hub's token page.")
        key = fingerprint(token)
        now = self._clock()
        caller = self._cache.fresh(key, now)
        if caller is not None:
            return caller
        stale = self._cache.stale(key, now)
        if self._retry_at:
            if now < self._retry_at:
                return await self._without_hub(key, token)
            # one request tries whether the Hub is back, all others go on without it meanwhile
            self._retry_at = now + _TIMEOUT + _PAUSE
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._ask(key, token, returning=stale is not None))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        try:
            # a caller that gives up must not take the answer from the others that wait for it
            return await asyncio.shield(flight)
        except Unavailable:
            return await self._without_hub(key, token)

    async def answers(self) -> bool:
        """Whether the Hub does, without a token: its API tells everybody its version."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._connections.request("GET", f"{self._hub_api_url}/")
            return "version" in _object(response)
        except _NO_ANSWER:
            return False

    async def close(self) -> None:
        """Let go of connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._connections.aclose()
        if self._verdicts is not None:
            await self._verdicts.close()

    def _landed(self, key: bytes, flight: asyncio.Task[Caller]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen, even when all who waited for it are gone

    async def _without_hub(self, key: bytes, token: str) -> Caller:
        stale = self._cache.stale(key, self._clock())
        if stale is None and self._verdicts is not None:
            stale = await self._shared(key, token)
        if stale is not None:
            return stale
        raise Unavailable("The Hub does not answer, so this token can't be checked. Try again in some seconds.")

    async def _shared(self, key: bytes, token: str) -> Caller | None:
        """What another process has heard of the token within the hour."""
        assert self._verdicts is not None
        async with self._turn(returning=False):
            known = self._cache.stale(key, self._clock())
            if known is not None:
                return known
            verdict = await self._verdicts.find(token)
        if verdict is None:
            return None
        caller, age = verdict
        self._cache.remember(key, caller, self._clock() - max(age, self._ttl))
        return self._cache.stale(key, self._clock())

    async def _ask(self, key: bytes, token: str, *, returning: bool) -> Caller:
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
                if self._verdicts is not None:
                    self._verdicts.forget(token)
                raise
        self._cache.remember(key, caller, self._clock())
        if self._verdicts is not None:
            self._verdicts.share(token, caller)
        return caller

    async def _confirm_refusal(self, token: str, *, returning: bool) -> None:
        """Believe a refusal only of a Hub that knows what it says.

        A Hub that can't write, because its disk is full, refuses every token whose use it would have to note. So it is asked
        whether it accepts the platform's own. That one it may have noted just now (it does so every half minute), so of a
        token that was good it must also say that it doesn't know it. JupyterHub keeps the token in that address out of its log.

        Raises
        ------
        Unavailable
            It says something else.
        """
        accepted = await self._status("/user")
        if accepted == 200 and returning:
            accepted = 200 if await self._status(f"/authorizations/token/{quote(token, safe='')}") == 404 else 0
        if accepted != 200:
            raise Unavailable(
                "The Hub refuses tokens that it knows, or the platform's own: its disk may be full. The Hub's log says more."
            )

    async def _status(self, path: str) -> int:
        """The status of an answer to the platform's own token."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._connections.request(
                    "GET",
                    self._hub_api_url + path,
                    headers={"Authorization": f"Bearer {self._hub_token}", "Accept": "application/json"},
                )
        except _NO_ANSWER as error:
            self._retry_at = self._clock() + _PAUSE
            raise Unavailable(f"The Hub does not answer as it should ({type(error).__name__}).") from error
        return int(response.status)

    @contextlib.asynccontextmanager
    async def _turn(self, *, returning: bool) -> AsyncIterator[None]:
        """Wait for a turn to ask; tokens that were good before have turns of their own."""
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
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._connections.request(
                    "GET",
                    self._hub_api_url + path,
                    headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                )
            if response.status in (401, 403):
                self._retry_at = 0.0
                raise Unauthorized(_UNKNOWN_TOKEN)
            body = _object(response)
        except _NO_ANSWER as error:
            self._retry_at = self._clock() + _PAUSE
            raise Unavailable(f"The Hub does not answer as it should ({type(error).__name__}).") from error
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
        """What our own token may read of the owner, but for the scopes, which are the token's."""
        try:
            owner = await self._get(f"/users/{quote(name, safe='')}", self._hub_token)
        except Unauthorized as error:
            raise Unavailable("The Hub refuses the platform's own token. Is the service llmos configured?") from error
        return {"admin": owner.get("admin") is True, "groups": owner.get("groups") or ()}


def _object(response: httpcore.Response) -> Mapping[str, Any]:
    """The JSON object of a good answer; ValueError where it is none."""
    body = json.loads(response.content) if response.status == 200 else None
    if not isinstance(body, dict):
        message = f"HTTP {response.status}"
        raise ValueError(message)  # noqa: TRY004 - one kind of error for everything that is no answer
    return body


def _scopes(owner: str, reported: Any) -> frozenset[str]:
    """The scopes of ours among those that the Hub reports.

    The Hub writes ``custom:llmos:invoke``, or ``custom:llmos:invoke!user=ada`` where the token was made with
    a filter. A filter on somebody or something else than the owner gives nothing here.
    """
    ours = (SCOPE_MANAGE, SCOPE_INVOKE)
    return frozenset(s for s in ours if s in reported or f"{s}!user={owner}" in reported)
