"""The pages and API routes that LLMOS adds to the Hub: passwords."""

from __future__ import annotations

import json
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.scopes import needs_scope
from tornado import web
from tornado.httputil import url_concat

from llmos_hub.passwords import find_password

__all__ = ["api_handlers", "authenticator_handlers"]


class OneTimeLoginHandler(LoginHandler):
    """The Hub's log-in page; whoever comes in with a one-time password is led to choose their own."""

    def get_next_url(self, user: Any = None, default: Any = None) -> str:
        """Where to go after log-in."""
        target: str = super().get_next_url(user, default)
        if user is not None and self.request.method == "POST":
            row = find_password(self.db, user.name)
            if row is not None and row.one_time:
                return str(url_concat(self.hub.base_url + "change-password", {"next": target}))
        return target


class ChangePasswordHandler(BaseHandler):
    """One's own password; an admin's page for another's is the same with a name in the path."""

    @web.authenticated
    async def get(self) -> None:
        """Show the form."""
        row = find_password(self.db, self.current_user.name)
        await self._page(one_time=bool(row and row.one_time))

    @web.authenticated
    async def post(self) -> None:
        """Change it; the old one proves that it is its owner who sits there."""
        user = self.current_user
        new = self.get_body_argument("new_password", strip=False)
        row = find_password(self.db, user.name)
        one_time = bool(row and row.one_time)
        if new != self.get_body_argument("new_password_again", strip=False):
            await self._page(one_time=one_time, error="The two new passwords differ.")
            return
        try:
            old = self.get_body_argument("old_password", strip=False)
            name = await self.authenticator.authenticate(self, {"username": user.name, "password": old})
            if name != user.name:
                await self._page(one_time=one_time, error="The current password is wrong.")
                return
            if new == old:
                await self._page(one_time=one_time, error="The new password is the old one.")
                return
            await self.authenticator.set_password(self.db, user.orm_user, new, one_time=False)
        except web.HTTPError as exc:
            await self._page(one_time=one_time, error=exc.log_message or "That password can't be taken.")
            return
        if one_time:
            self.redirect(self.get_next_url(user))
            return
        await self._page(one_time=False, done=True)

    async def _page(self, *, one_time: bool, error: str = "", done: bool = False) -> None:
        if error:
            self.set_status(400)
        html = await self.render_template(
            "llmos-change-password.html",
            one_time=one_time,
            error=error,
            done=done,
            next_url=self.get_next_url(self.current_user, self.hub.base_url + "home"),
            form_url=self.request.uri,
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(html)


class UserPasswordHandler(APIHandler):
    """``POST /hub/api/llmos/users/NAME/password``: an admin makes a person, or sets a person's password."""

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """``{"password": …, "one_time": true, "create": false, "admin": false}``."""
        content = self.get_json_body()
        if not isinstance(content, dict) or not isinstance(content.get("password"), str):
            raise web.HTTPError(400, 'The body must be JSON: {"password": "…"}')
        authenticator = self.authenticator
        name = authenticator.normalize_username(name)
        user = self.find_user(name)
        if content.get("create"):
            if user is not None:
                message = f'There is a user "{name}" already. New password: llmos user password {name} (over the API: leave out "create")'
                raise web.HTTPError(409, message)
            user = await self._create(name, admin=bool(content.get("admin")))
        elif user is None:
            raise web.HTTPError(
                404, f'There is no user "{name}". Make one: llmos user add {name} (over the API: "create": true)'
            )
        one_time = bool(content.get("one_time", True))
        await authenticator.set_password(self.db, user.orm_user, content["password"], one_time=one_time)
        self.set_status(201 if content.get("create") else 200)
        self.write(json.dumps({"name": user.name, "admin": user.admin, "one_time": one_time}))

    async def _create(self, name: str, *, admin: bool) -> Any:
        if not name or not self.authenticator.validate_username(name):
            raise web.HTTPError(400, f"\"{name[:64]}\" can't be a user's name.")
        user = self.user_from_username(name)
        if admin:
            user.admin = True
            from jupyterhub.roles import assign_default_roles

            assign_default_roles(self.db, entity=user)
        self.db.commit()
        return user


def authenticator_handlers() -> list[tuple[str, Any]]:
    """What the authenticator adds below ``/hub``."""
    return [("/login", OneTimeLoginHandler), ("/change-password", ChangePasswordHandler)]


def api_handlers() -> list[tuple[str, Any]]:
    """What the Hub's configuration adds below ``/hub``."""
    return [("/api/llmos/users/([^/]+)/password", UserPasswordHandler)]
