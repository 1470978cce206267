"""The settings that LLMOS needs in a JupyterHub, merged into a site's configuration.

``configure(c, ...)`` is the last line of a site's ``jupyterhub_config.py``. It keeps the site's settings, adds those
that LLMOS needs, and reports what could not be added. It supports JupyterHub 5.5 and 6.x (the chart of Zero to
JupyterHub has 5.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from traitlets.config.loader import LazyConfigValue

from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE

__all__ = ["CUSTOM_SCOPES", "SERVER_TOKEN_SCOPES", "USER_SCOPES", "Tokens", "configure"]

CUSTOM_SCOPES: Final[Mapping[str, Mapping[str, str]]] = {
    SCOPE_MANAGE: {"description": "Use the LLMOS API as oneself: deploy models, read their logs"},
    SCOPE_INVOKE: {"description": "Call models through the LLMOS gateway as oneself"},
}
USER_SCOPES: Final = (
    SCOPE_MANAGE,
    SCOPE_INVOKE,
    "access:services!service=llmos",
    "access:services!service=llm",
)
"""Scopes of every user, which a user can also give to a token."""
SERVER_TOKEN_SCOPES: Final = (
    "users:activity!user",
    "access:servers!server",
    "access:services!service=llmos",
    SCOPE_MANAGE,
)
"""Scopes of a notebook server's own token: report activity, let its owner in, use the API as its owner."""
# The API names users and groups in its answers; the gateway asks the Hub with each caller's own token.
SERVICE_SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "llmos": ("list:users", "read:users", "read:servers", "list:groups", "read:groups"),
    "llm": ("read:users:name", "read:users:groups"),
}


_HUBS_LIMIT: Final = 100
"""The default of ``JupyterHub.concurrent_spawn_limit``."""


@dataclass(frozen=True)
class Tokens:
    """The API tokens of the two services.

    Attributes
    ----------
    llmos, llm
        Tokens of the API and of the gateway; 32 bytes in hex.
    """

    llmos: str
    llm: str


def configure(
    c: Any,
    *,
    api_url: str,
    gateway_url: str,
    tokens: Tokens,
    report: Callable[[str], None] | None = None,
    hub_version: tuple[int, ...] | None = None,
) -> list[str]:
    """Add LLMOS to a Hub's configuration.

    Parameters
    ----------
    c
        The configuration object of ``jupyterhub_config.py``.
    api_url, gateway_url
        URLs of API and gateway for the Hub's proxy: ``http://llmos-api:8080``.
    tokens
        The API tokens of the two services.
    report
        Called with each line about what was done; by default the lines are only returned.
    hub_version
        Version of JupyterHub; by default the installed one's.

    Returns
    -------
    list of str
        Lines about what was added, and lines with "could not" about what was not added and why.
    """
    version = hub_version or _installed_version()
    lines = [
        *_add_scopes(c),
        *_add_services(c, {"llmos": (api_url, tokens.llmos), "llm": (gateway_url, tokens.llm)}, version),
        *_add_roles(c),
        *_extend_users(c, version),
        *_set_server_tokens(c),
        *_queue_starts(c),
        *_check_base_url(c),
    ]
    if report:
        for line in lines:
            report(line)
    return lines


def _installed_version() -> tuple[int, ...]:
    from jupyterhub import version_info

    return tuple(part for part in version_info if isinstance(part, int))


def _plain(section: Any, name: str, empty: Any) -> Any:
    """Return a copy of the site's value, or `empty` if it is not set."""
    # for an unset name, ``c.X.y`` is a LazyConfigValue, which may have recorded values to append
    value = section.get(name, empty) if name in section else empty
    if isinstance(value, LazyConfigValue):
        value = value.get_value(type(empty)())
    return type(empty)(value) if isinstance(value, type(empty)) else value


def _add_scopes(c: Any) -> Iterable[str]:
    scopes = _plain(c.JupyterHub, "custom_scopes", {})
    new = {name: dict(text) for name, text in CUSTOM_SCOPES.items() if name not in scopes}
    c.JupyterHub.custom_scopes = {**scopes, **new}
    yield f"scopes {', '.join(new)} added" if new else "scopes exist already"


def _add_services(c: Any, ours: Mapping[str, tuple[str, str]], version: tuple[int, ...]) -> Iterable[str]:
    services = _plain(c.JupyterHub, "services", [])
    for name, (url, token) in ours.items():
        if any(service.get("name") == name for service in services):
            yield f"could not add service {name}: the site has one of that name; its own settings are left"
            continue
        # display: neither has pages for the Hub's menu of services
        service: dict[str, Any] = {"name": name, "url": url, "api_token": token, "display": False}
        if version >= (6,):
            service["timeout"] = 1  # seconds by which a service that is down may delay the Hub's start
        services.append(service)
        yield f"service {name} at {url} added"
    c.JupyterHub.services = services


def _add_roles(c: Any) -> Iterable[str]:
    roles = _plain(c.JupyterHub, "load_roles", [])
    names = {role.get("name") for role in roles}
    for service, scopes in SERVICE_SCOPES.items():
        name = f"llmos-service-{service}"
        if name in names:
            yield f"role {name} exists already"
            continue
        description = "What LLMOS' API may know" if service == "llmos" else "What LLMOS' gateway may know"
        roles.append({"name": name, "description": description, "scopes": list(scopes), "services": [service]})
        yield f"role {name} added"
    c.JupyterHub.load_roles = roles


def _extend_users(c: Any, version: tuple[int, ...]) -> Iterable[str]:
    roles = c.JupyterHub.load_roles
    redefined = next((role for role in roles if role.get("name") == "user"), None)
    if redefined is not None:
        # JupyterHub ignores extra_user_scopes if the site redefines the role
        scopes = list(redefined.get("scopes", ["self"]))
        redefined["scopes"] = scopes + [scope for scope in USER_SCOPES if scope not in scopes]
        yield "the site's role user extended"
    elif version >= (6,):
        extra = set(_plain(c.JupyterHub, "extra_user_scopes", set()))
        c.JupyterHub.extra_user_scopes = extra | set(USER_SCOPES)
        yield "extra_user_scopes extended"
    else:
        roles.append({"name": "user", "scopes": ["self", *USER_SCOPES]})
        yield "role user extended"


def _set_server_tokens(c: Any) -> Iterable[str]:
    # all sections: the most specific one takes effect, such as c.KubeSpawner's over c.Spawner's
    sections = [
        name for name, section in c.items() if isinstance(section, Mapping) and "server_token_scopes" in section
    ]
    for name in dict.fromkeys([*sections, "Spawner"]):
        scopes = _plain(c[name], "server_token_scopes", [])
        if callable(scopes):
            yield (
                f"could not extend {name}.server_token_scopes: the site's is a function; it must return "
                f"{', '.join(SERVER_TOKEN_SCOPES)} as well"
            )
            continue
        c[name].server_token_scopes = scopes + [scope for scope in SERVER_TOKEN_SCOPES if scope not in scopes]
        yield f"{name}.server_token_scopes extended" if scopes else f"{name}.server_token_scopes set"


def _queue_starts(c: Any) -> Iterable[str]:
    """Move the Hub's limit of concurrent starts to the spawner, which queues further starts instead of refusing them."""
    kind = _plain(c.JupyterHub, "spawner_class", "")
    names = [one.__name__ for one in kind.__mro__] if isinstance(kind, type) else [str(kind).rpartition(".")[2]]
    if "LLMOSKubeSpawner" not in names:
        return
    limit = _plain(c.JupyterHub, "concurrent_spawn_limit", _HUBS_LIMIT)
    if limit and "concurrent_starts" not in c.LLMOSKubeSpawner:
        c.LLMOSKubeSpawner.concurrent_starts = limit
    c.JupyterHub.concurrent_spawn_limit = 0
    if limit:
        yield f"concurrent_spawn_limit ({limit}): those who come then wait for their turn instead of being refused"


def _check_base_url(c: Any) -> Iterable[str]:
    base_url = _plain(c.JupyterHub, "base_url", "") or urlsplit(_plain(c.JupyterHub, "bind_url", "")).path
    if base_url.strip("/"):
        yield (
            f"could not make API and gateway reachable through the Hub's proxy: it serves under {base_url}, and they "
            "answer at / only. Servers and programs reach them at their own addresses"
        )
