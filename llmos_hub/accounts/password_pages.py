"""The log-in page, and the page where users choose their password.

A one-time password starts no session. It gives the browser a ticket: a signed cookie that is valid for 15 minutes and
only allows to set another password for the user whose one-time password it was, while that password is valid.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from jupyterhub import orm
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from tornado import web
from tornado.httputil import url_concat

from llmos_hub.accounts.attempts import Place
from llmos_hub.accounts.passwords import (
    OneTimePasswordGiven,
    PasswordRow,
    PasswordState,
    end_sessions,
    end_tokens,
    password_state,
    people_tokens,
)
from llmos_hub.accounts.server_tokens import ServerTokens

__all__ = ["authenticator_handlers"]

_TICKET: Final = "llmos-one-time"
_TICKET_DAYS: Final = 15 / 1440  # a quarter of an hour: long enough to think of a password


def _ticket_for(row: PasswordRow) -> str:
    """Return a ticket bound to the current password, so that it becomes invalid with the next one."""
    return json.dumps([row.user_id, hashlib.sha256(str(row.hash).encode()).hexdigest()])


class OneTimeLoginHandler(LoginHandler):
    """The Hub's log-in page; a one-time password leads to the page for choosing a password."""

    async def post(self) -> None:
        """Log in, or redirect to the choice of a password."""
        try:
            await super().post()
        except OneTimePasswordGiven as given:
            row = self.db.get(PasswordRow, orm.User.find(self.db, given.name).id)
            self._set_cookie(
                _TICKET, _ticket_for(row), path=self.hub.base_url, expires_days=_TICKET_DAYS, samesite="Strict"
            )
            self.log.info("A one-time password of %s was given", given.name)
            target = self.get_argument("next", default="")
            self.redirect(url_concat(self.hub.base_url + "change-password", {"next": target} if target else {}))


class ChangePasswordHandler(BaseHandler):
    """The page for choosing a password, after a one-time password or in place of the current one."""

    async def get(self) -> None:
        """Show the form."""
        person = self._holder() or self.current_user
        if person is None:
            self.redirect(url_concat(self.settings["login_url"], {"next": self.request.uri}))
            return
        await self._page(person)

    async def post(self) -> None:
        """Set the new password, end the user's other sessions, and log the browser in."""
        holder = self._holder()
        person = holder or self.current_user
        if person is None:
            self.redirect(url_concat(self.settings["login_url"], {"next": self.request.uri}))
            return
        try:
            await self._change(person, one_time=holder is not None)
        except web.HTTPError as exc:
            await self._page(person, error=exc.log_message or "That password can't be taken.")
            return
        tokens = 0
        if self.get_body_argument("end_tokens", ""):
            tokens = end_tokens(self.db, person.orm_user, ServerTokens(person))
        end_sessions(self.db, person.orm_user)
        self.clear_cookie(_TICKET, path=self.hub.base_url)
        self.set_session_cookie()
        self.set_login_cookie(person)
        self.authenticator.remember_browser(self, person.name)
        self.log.info("%s has chosen a password; their other sessions and %d tokens ended", person.name, tokens)
        if holder is not None:
            self.redirect(self.get_next_url(person))
            return
        await self._page(person, done=True, ended=tokens)

    async def _change(self, person: Any, *, one_time: bool) -> None:
        """Check the form and set the password.

        Raises
        ------
        HTTPError
            400: the form is wrong; the message says how.
        """
        new = self.get_body_argument("new_password", "", strip=False)
        if new != self.get_body_argument("new_password_again", "", strip=False):
            raise web.HTTPError(400, "The two new passwords differ.")
        if one_time:
            same = await self.authenticator.is_password(self.db, person.name, new)
        else:
            old = self.get_body_argument("old_password", "", strip=False)
            # a place of its own, so that others' guesses don't delay a user who is logged in; named by the Hub's own
            # cookie_id, as the browser could send any session cookie
            place = Place(f"session {person.orm_user.cookie_id}", known=True)
            if not await self.authenticator.check_password(self, person.name, old, place):
                raise web.HTTPError(400, "The current password is wrong.")
            same = new == old
        if same:
            raise web.HTTPError(400, "The new password is the old one.")
        await self.authenticator.set_password(self.db, person.orm_user, new, one_time=False)

    def _holder(self) -> Any | None:
        """Return the user whose valid ticket this browser has."""
        ticket = self.get_secure_cookie(_TICKET, max_age_days=_TICKET_DAYS)
        if not ticket:
            return None
        row = self.db.get(PasswordRow, json.loads(ticket)[0])
        if row is None or _ticket_for(row) != ticket.decode():
            return None
        user = self.db.get(orm.User, row.user_id)
        return self.users[user] if password_state(self.db, user) is PasswordState.ONE_TIME else None

    async def _page(self, person: Any, *, error: str = "", done: bool = False, ended: int = 0) -> None:
        if error:
            self.set_status(400)
        html = await self.render_template(
            "llmos-change-password.html",
            person=person.name,
            one_time=self._holder() is not None and not done,
            error=error,
            done=done,
            ended=ended,
            tokens=len(people_tokens(person.orm_user, ServerTokens(person))),
            form_url=self.request.uri,
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(html)


def authenticator_handlers() -> list[tuple[str, Any]]:
    """Return the handlers that the authenticator adds below ``/hub``."""
    return [("/login", OneTimeLoginHandler), ("/change-password", ChangePasswordHandler)]
