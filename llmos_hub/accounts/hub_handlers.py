"""The API routes and pages that LLMOS adds to the Hub: users, passwords, groups, and server starts."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import UserAPIHandler, UserListAPIHandler
from jupyterhub.handlers.pages import ProxyErrorHandler, SpawnHandler
from jupyterhub.roles import assign_default_roles
from jupyterhub.scopes import expand_scopes, get_scopes_for, needs_scope
from jupyterhub.utils import maybe_future
from tornado import web

from llmos.errors import Unavailable
from llmos_hub.accounts.former_groups import NAME_RULE, forget_group
from llmos_hub.accounts.password_rules import make_password
from llmos_hub.accounts.passwords import end_sessions, end_tokens, password_state
from llmos_hub.accounts.server_tokens import ServerTokens
from llmos_hub.names import API_PREFIX, GATEWAY_PREFIX, SCOPE_ACCOUNTS

__all__ = ["api_handlers", "error_handlers", "replacing_handlers"]


def _may_make_admins(handler: APIHandler) -> bool:
    """Return whether the caller may make admins; as in JupyterHub, the scope ``admin:users`` is not enough."""
    return bool(handler.current_user.admin or handler.has_scope(SCOPE_ACCOUNTS))


def _beyond(handler: APIHandler, scopes: set[str]) -> set[str]:
    """Return those of the scopes that are for the whole Hub, beyond those of every user and of the caller."""
    more = scopes - _scopes_of(handler, "user") - handler.expanded_scopes
    return {scope for scope in more if "!" not in scope}


def _scopes_of(handler: APIHandler, role_name: str) -> set[str]:
    """Return the scopes that a role gives on the whole Hub."""
    role = orm.Role.find(handler.db, role_name)
    wide = [scope for scope in role.scopes if scope != "self" and "!" not in scope] if role is not None else []
    return set(expand_scopes(wide))


def _configured_scopes(handler: APIHandler, name: str) -> set[str]:
    """Return the scopes that the configuration gives to a name at the Hub's next start, by roles and groups."""
    app = handler.settings["app"]

    def among(content: Any) -> bool:
        users = content.get("users", ()) if isinstance(content, dict) else content
        return name in [handler.authenticator.normalize_username(user) for user in users]

    groups = {group for group, content in app.load_groups.items() if among(content)}
    return {
        scope
        for role in app.load_roles
        if among(role) or groups.intersection(role.get("groups", ()))
        for scope in _scopes_of(handler, role["name"])
    }


def _refuse_configured_name(handler: APIHandler, name: str) -> None:
    """Refuse a name to which the configuration gives rights, at the next log-in or at the Hub's next start.

    Raises
    ------
    HTTPError
        403: it is the name of an admin, or a role gives it rights beyond the caller's, and the caller may not make
        admins.
    """
    if _may_make_admins(handler):
        return
    if name in handler.authenticator.admin_users:
        message = f'"{name[:64]}" is an admin by the configuration (Authenticator.admin_users): only admins can give this name.'
        raise web.HTTPError(403, message)
    if more := _beyond(handler, _configured_scopes(handler, name)):
        message = (
            f'"{name[:64]}" has rights by the configuration (JupyterHub.load_roles) that you don\'t have, such as '
            f"{min(more)}: only admins can give this name."
        )
        raise web.HTTPError(403, message)


class PeopleHandler(APIHandler):
    """``GET /hub/api/llmos/users``: all users, with the state of their passwords."""

    @needs_scope("admin:users")
    async def get(self) -> None:
        """Return ``[{"name": …, "admin": false, "password": "none|one-time|expired|own", "servers": 1}]``."""
        people = [
            {
                "name": user.name,
                "admin": bool(user.admin),
                "password": str(password_state(self.db, user)),
                "created": f"{user.created.isoformat()}Z" if user.created else None,
                "last_activity": f"{user.last_activity.isoformat()}Z" if user.last_activity else None,
                "servers": len([spawner for spawner in self.users[user].spawners.values() if spawner.active]),
            }
            for user in self.db.query(orm.User).order_by(orm.User.name)
        ]
        self.write(json.dumps(people))


class UserPasswordHandler(APIHandler):
    """``POST /hub/api/llmos/users/NAME/password``: create a user, or set a user's password."""

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """Set a password, and create the user first if ``create`` is true.

        The body is ``{"password": …, "one_time": true, "create": false, "admin": false, "inherit": false,
        "stop_servers": false}``. Without a password a one-time password is generated and returned. The user's sessions
        and the tokens that they have made end. Running servers continue with their own tokens, unless they are to be
        stopped.
        """
        content = self.get_json_body() or {}
        if not isinstance(content, dict) or not isinstance(content.get("password", ""), str):
            raise web.HTTPError(400, 'The body must be JSON: {"password": "…"}, or {} for a one-time password')
        name = self.authenticator.normalize_username(name)
        user = self.find_user(name)
        create, admin = bool(content.get("create")), bool(content.get("admin"))
        self._refuse_for_admins(user, name, admin=admin)
        if create and user is not None:
            message = f'There is a user "{name}" already. New password: llmos user password {name} (over the API: leave out "create")'
            raise web.HTTPError(409, message)
        if not create and user is None:
            raise web.HTTPError(
                404,
                f'There is no user "{name[:64]}". Make one: llmos user add {name[:64]} (over the API: "create": true)',
            )
        made = "" if content.get("password") else make_password()
        one_time = bool(made) or bool(content.get("one_time", True))
        self.authenticator.refuse_weak(made or content["password"], name)
        if user is None:
            if content.get("inherit"):
                self.authenticator.hand_over(self.db, name)
            user = await self._create(name, admin=admin)
        await self.authenticator.set_password(self.db, user.orm_user, made or content["password"], one_time=one_time)
        ended = {} if create else await self._end(user, stop_servers=bool(content.get("stop_servers")))
        self.log.info("%s has set a password for %s", self.current_user.name, user.name)
        self.set_status(201 if create else 200)
        answer = {"name": user.name, "admin": user.admin, "one_time": one_time, **ended}
        self.write(json.dumps({**answer, "password": made} if made else answer))

    def _refuse_for_admins(self, user: Any | None, name: str, *, admin: bool) -> None:
        """Refuse requests by which a caller could become an admin, or log in as somebody with more rights.

        Raises
        ------
        HTTPError
            403: the user is or is to become an admin, or a role gives them rights beyond the caller's, and the caller may
            not make admins.
        """
        if _may_make_admins(self):
            return
        if user is None or name in self.authenticator.admin_users:
            _refuse_configured_name(self, name)
        if admin:
            raise web.HTTPError(403, "Only admins can make admins.")
        if user is not None and user.admin:
            raise web.HTTPError(403, "Only admins can set an admin's password.")
        if user is not None and (more := _beyond(self, get_scopes_for(user.orm_user))):
            message = (
                f"{user.name} has rights that you don't have, such as {min(more)}: only admins can set this password."
            )
            raise web.HTTPError(403, message)

    async def _create(self, name: str, *, admin: bool) -> Any:
        if not self.authenticator.validate_username(name):
            raise web.HTTPError(400, f"{name[:64]!r} can't be a user's name. {self.authenticator.name_rule}")
        try:
            self.authenticator.refuse_former(self.db, name)
        except ValueError as error:
            raise web.HTTPError(409, str(error)) from None
        user = self.user_from_username(name)
        user.admin = admin
        assign_default_roles(self.db, entity=user)
        self.db.commit()
        await maybe_future(self.authenticator.add_user(user))
        return user

    async def _end(self, user: Any, *, stop_servers: bool) -> dict[str, Any]:
        """End sessions and tokens of the old password; return how many tokens ended and which servers still run."""
        end_sessions(self.db, user.orm_user)
        active = [name for name, spawner in user.spawners.items() if spawner.active]
        if stop_servers:
            for name in active:
                if not user.spawners[name].pending:
                    await self.stop_single_user(user, name)
        tokens = end_tokens(self.db, user.orm_user, ServerTokens(user))
        left = [name for name, spawner in user.spawners.items() if spawner.active and not spawner._stop_pending]  # noqa: SLF001 - the Hub has no public attribute for it
        return {"tokens_ended": tokens, "servers_left": left}


class _ConfiguredNames(APIHandler):
    """A base class of routes that create users: a name to which the configuration gives rights is for admins to give."""

    def user_from_username(self, username: str) -> Any:
        """Return the user of that name, and create one if there is none."""
        if self.find_user(username) is None:
            _refuse_configured_name(self, username)
        return super().user_from_username(username)


class GuardedUserListHandler(_ConfiguredNames, UserListAPIHandler):
    """The Hub's route that creates users, with the check of `_ConfiguredNames`."""


class GuardedUserHandler(_ConfiguredNames, UserAPIHandler):
    """The Hub's route that creates, renames and deletes a user, with the check of `_ConfiguredNames`.

    JupyterHub lets whoever has ``delete:users``, which is part of ``admin:users``, delete admins as well.
    """

    @needs_scope("delete:users")
    async def delete(self, user_name: str) -> None:
        """Delete a user; only admins may delete an admin, as only they may change one."""
        user = self.find_user(user_name)
        if user is not None and user.admin and not _may_make_admins(self):
            raise web.HTTPError(403, "Only admins can delete an admin.")
        await super().delete(user_name)

    @needs_scope("admin:users")
    async def post(self, user_name: str) -> None:
        """Create a user, under the name with which they log in: JupyterHub takes it as it is written, capitals included."""
        await super().post(self.authenticator.normalize_username(user_name))

    @needs_scope("admin:users")
    async def patch(self, user_name: str) -> None:
        """Change a user's name or admin status.

        To JupyterHub a name says nothing; here it leads to a home and a namespace, and names in the configuration to rights.
        """
        content = self.get_json_body()
        new = content.get("name") if isinstance(content, dict) else None
        user = self.find_user(user_name)
        renamed = user is not None and isinstance(new, str) and new != user_name
        if renamed:
            name = self.authenticator.normalize_username(new)
            _refuse_configured_name(self, name)
            try:
                self.authenticator.refuse_former(self.db, name, user.orm_user)
            except ValueError as error:
                raise web.HTTPError(409, str(error)) from None
        await super().patch(user_name)
        if renamed:
            self.authenticator.renamed(self.db, user.orm_user, user_name)


class GroupHandler(APIHandler):
    """``POST /hub/api/llmos/groups/NAME``: create a group, optionally with what a former one of that name left."""

    @needs_scope("admin:groups")
    async def post(self, name: str) -> None:
        """Create the group; the body is ``{"inherit": false}``."""
        content = self.get_json_body() or {}
        if not isinstance(content, dict):
            raise web.HTTPError(400, 'The body must be JSON: {"inherit": true}, or {}')
        if not name.isprintable() or "/" in name or name in {".", ".."}:
            raise web.HTTPError(400, NAME_RULE)
        if orm.Group.find(self.db, name) is not None:
            raise web.HTTPError(
                409, f'There is a group "{name[:64]}" already. Its members: {self.hub.base_url}admin#/groups'
            )
        if content.get("inherit"):
            forget_group(self.db, name)
        self.db.add(orm.Group(name=name))
        self.db.commit()
        self.log.info("%s has made the group %s", self.current_user.name, name)
        self.set_status(201)
        self.write(json.dumps({"name": name}))


class ConfirmedSpawnHandler(SpawnHandler):
    """The Hub's spawn page, on which following a link is not enough to start a server.

    JupyterHub starts a server at once if the URL has options or there is no form, so anybody could start one by sending
    a link; and with a link sent to an admin, somebody else's. Here options in the URL only preselect in the form, and
    without a form the start needs a click if the link came from another site or the server is another user's.
    """

    chosen_options: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def _get_user_options(self, query_options: dict[str, list[str]]) -> dict[str, list[str]]:
        chosen = super()._get_user_options(query_options)
        self.chosen_options = {name: values[-1] for name, values in chosen.items()}
        return {}

    async def _wrap_spawn_single_user(self, user: Any, *args: Any, **kwargs: Any) -> None:
        if self.request.method == "GET" and self._needs_click(user):
            form = '<p class="text-center">The server starts when you press the button.</p>'
            self.finish(await self._render_form(for_user=user, spawner_options_form=form))
            return
        await super()._wrap_spawn_single_user(user, *args, **kwargs)

    def _needs_click(self, user: Any) -> bool:
        elsewhere = self.request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        return elsewhere or user.name != self.current_user.name or bool(self.chosen_options)


class ServiceErrorHandler(ProxyErrorHandler):
    """The answer to requests for a service that the proxy can't reach: for the API and the gateway, an error in JSON.

    The proxy fetches it with the path of the request (``?url=``), and passes on its body and content type. It has a path
    of its own: at ``/hub/error`` the Hub's own handler comes first.
    """

    async def get(self, status_code_s: str) -> None:
        """Answer such as ``/hub/llmos/error/503?url=/services/llmos/apis``."""
        path = urlsplit(self.get_query_argument("url", "")).path
        services = {API_PREFIX: "API", GATEWAY_PREFIX: "gateway"}
        prefix = next((each for each in services if path == each or path.startswith(f"{each}/")), None)
        # 404: the proxy was restarted and waits for its routes
        if prefix is None or int(status_code_s) not in (404, Unavailable.status):
            await super().get(status_code_s)
            return
        error = Unavailable(
            f"LLMOS's {services[prefix]} does not answer: it may be starting. Try again in some seconds. "
            "If it continues, see what runs with: llmos status"
        )
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(error.to_status() if prefix == API_PREFIX else error.to_openai()))


def api_handlers() -> list[tuple[str, Any]]:
    """Return the handlers of accounts for ``JupyterHub.extra_handlers``."""
    return [
        ("/api/llmos/users", PeopleHandler),
        ("/api/llmos/users/([^/]+)/password", UserPasswordHandler),
        ("/api/llmos/groups/([^/]+)", GroupHandler),
    ]


def replacing_handlers() -> list[tuple[str, Any]]:
    """Return the handlers that replace the Hub's own, where a name and a password suffice to log in."""
    return [
        ("/api/users", GuardedUserListHandler),
        ("/api/users/([^/]+)", GuardedUserHandler),
        ("/spawn", ConfirmedSpawnHandler),
        ("/spawn/([^/]+)", ConfirmedSpawnHandler),
        ("/spawn/([^/]+)/([^/]+)", ConfirmedSpawnHandler),
    ]


def error_handlers() -> list[tuple[str, Any]]:
    """Return the handlers for ``JupyterHub.extra_handlers`` to which the proxy's ``--error-target`` points.

    They don't depend on the authenticator, so that they work with any.
    """
    return [(r"/llmos/error/(\d+)", ServiceErrorHandler)]
