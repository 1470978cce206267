"""The environment common to servers of all spawners: addresses, a token for models, and its revocation.

The Hub doesn't revoke tokens created by a spawner, and after a restart it doesn't know the server's own token either. So
tokens are found by their note, which is stored in the Hub's database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from llmos.names import invoke_note, token_notes
from llmos.proxies import CLUSTER_HOSTS, hosts_of, with_no_proxy

__all__ = [
    "INVOKE_SCOPES",
    "chosen_options",
    "keep_spawner",
    "mint_invoke_token",
    "past_proxies",
    "revoke_tokens",
]

INVOKE_SCOPES: Final = ("custom:llmos:invoke",)
"""Scopes of the token in ``OPENAI_API_KEY``; no more, as every process that the user starts inherits it."""


def mint_invoke_token(spawner: Any) -> str:
    """Create a token with which the server's owner can only call models."""
    note = invoke_note(spawner.user.name, spawner.name)
    _delete(spawner, {note})  # left by a Hub that was killed during a start
    token: str = spawner.user.new_api_token(note=note, scopes=list(INVOKE_SCOPES))
    return token


def revoke_tokens(spawner: Any) -> int:
    """Delete all tokens of this server; return their number."""
    return _delete(spawner, set(token_notes(spawner.user.name, spawner.name, spawner.user.base_url)))


def chosen_options(spawner: Any) -> dict[str, Any]:
    """Return the options to preselect in the form: those of the last start, overridden by those in the page's URL."""
    return {**(spawner.user_options or {}), **getattr(spawner.handler, "chosen_options", {})}


def _delete(spawner: Any, notes: set[str]) -> int:
    db = spawner.db
    tokens = [token for token in spawner.user.orm_user.api_tokens if token.note in notes]
    for token in tokens:
        db.delete(token)
    db.commit()
    return len(tokens)


def past_proxies(environment: Mapping[str, Any], *urls: str) -> dict[str, Any]:
    """Return a server's environment, with the cluster and these addresses in ``NO_PROXY`` if it names a proxy.

    Values that aren't text (references to Secrets) are not changed.
    """
    plain = {name: value for name, value in environment.items() if isinstance(value, str)}
    return {**environment, **with_no_proxy(plain, [*CLUSTER_HOSTS, *hosts_of(*urls)])}


Hook = Callable[[Any], Awaitable[None] | None]


def keep_spawner(
    c: Any, *, openai_base_url: str, llmos_url: str, report: Callable[[str], None] | None = None
) -> list[str]:
    """Give the servers of a Hub's own spawner the platform's addresses and a token for models.

    Parameters
    ----------
    c
        The configuration object of ``jupyterhub_config.py``.
    openai_base_url, llmos_url
        URLs of the gateway with ``/v1`` and of the API, as seen from servers.
    report
        Called with each line about what was done.

    Returns
    -------
    list of str
        Lines about what was done. The site's own hooks still run: before a start first, after a stop last.
    """
    addresses = {"OPENAI_BASE_URL": openai_base_url, "LLMOS_URL": llmos_url}
    wraps: dict[str, Callable[[Hook | None], Hook]] = {
        "pre_spawn_hook": partial(_before_start, addresses),
        "post_stop_hook": _after_stop,
    }
    lines = []
    for hook, wrap in wraps.items():
        # all sections: the most specific one takes effect, such as c.KubeSpawner's over c.Spawner's
        sections = [name for name, section in c.items() if isinstance(section, Mapping) and hook in section]
        for name in dict.fromkeys([*sections, "Spawner"]):
            section = c[name]
            site = section.get(hook)
            section[hook] = wrap(site)
            lines.append(f"{name}.{hook} {'wrapped; the existing hook still runs' if site else 'set'}")
    if report:
        for line in lines:
            report(line)
    return lines


def _before_start(addresses: Mapping[str, str], site: Hook | None) -> Hook:
    async def pre_spawn_hook(spawner: Any) -> None:
        await _run(site, spawner)
        # keep the site's own values, but not those that were set here at an earlier start
        ours = getattr(spawner, "llmos_environment", {})
        environment = {name: value for name, value in spawner.environment.items() if ours.get(name) != value}
        token = mint_invoke_token(spawner)
        platform = {**addresses, "OPENAI_API_KEY": token}
        spawner.llmos_environment = {name: platform[name] for name in platform if name not in environment}
        urls = (*addresses.values(), spawner.hub.api_url)
        spawner.environment = past_proxies({**environment, **spawner.llmos_environment}, *urls)

    return pre_spawn_hook


def _after_stop(site: Hook | None) -> Hook:
    async def post_stop_hook(spawner: Any) -> None:
        revoke_tokens(spawner)
        await _run(site, spawner)

    return post_stop_hook


async def _run(hook: Hook | None, spawner: Any) -> None:
    if hook is not None and isinstance(done := hook(spawner), Awaitable):
        await done
