"""Log-in with a name and a password stored by the Hub, where there is no identity provider.

Admins create the accounts; there is no sign-up. A password set by somebody else (a one-time password) only gives access
to the page where the user chooses their own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from jupyterhub import orm
from jupyterhub.auth import Authenticator
from sqlalchemy.orm import Session, object_session
from tornado import web
from traitlets import Float
from traitlets import Integer as IntegerTrait
from traitlets import Unicode as UnicodeTrait

from llmos_hub.accounts.attempts import Attempts, Delays, Place, place_of
from llmos_hub.accounts.former_people import forget, remember, what_is_left
from llmos_hub.accounts.hash_limiter import HashLimiter
from llmos_hub.accounts.hub_handlers import replacing_handlers
from llmos_hub.accounts.password_pages import authenticator_handlers
from llmos_hub.accounts.password_rules import MAX_LENGTH, check_strength
from llmos_hub.accounts.passwords import (
    OneTimePasswordGiven,
    OneTimeRow,
    PasswordRow,
    PasswordState,
    find_password,
    hash_password,
    password_state,
    store_password,
    verify_password,
)

__all__ = ["LLMOSAuthenticator"]

_LONGEST_NAME: Final = 255
"""Maximum length of a name, as in the Hub's database; a longer one cannot exist, and its failures are not counted."""
_BROWSER_DAYS: Final = 90
_PROVED: Final = Place("proved", known=True)
"""The place for users who have authenticated already, and for admins who set a user's password."""


class LLMOSAuthenticator(Authenticator):
    """An authenticator whose names and passwords are stored in the Hub's database."""

    failures_before_delay = IntegerTrait(
        5,
        config=True,
        help="Number of wrong passwords for a name from one address that cause no delay. Five leave room for a typing "
        "error or two.",
    )
    first_delay = Float(
        5.0,
        config=True,
        help="Seconds for which a name is locked for an address after the first wrong password beyond that number; "
        "doubles with each further one.",
    )
    longest_delay = Float(
        900.0,
        config=True,
        help="Maximum time in seconds for which a name is locked for one address. A quarter of an hour allows about 100 "
        "guesses a day.",
    )
    failures_anywhere = IntegerTrait(
        50,
        config=True,
        help="Number of wrong passwords for a name from all addresses together that cause no delay. Browsers in which "
        "the user has logged in before are neither counted nor delayed.",
    )
    longest_delay_anywhere = Float(
        60.0,
        config=True,
        help="Maximum time in seconds for which a name is locked for all unknown browsers. A minute allows 1,440 guesses "
        "a day, too few to find a one-time password, and other people's guesses don't lock a user out for long.",
    )
    one_time_lifetime = Float(
        7 * 86_400.0,
        config=True,
        help="Validity of a one-time password in seconds. A week, for one that is sent on a Friday. The first admin's "
        "doesn't expire: it is in a file that only the account that runs the platform can read.",
    )
    most_waiting = IntegerTrait(
        20,
        config=True,
        help="Maximum number of log-ins that wait while two others are checked; further ones are answered with 429, and "
        "those from one address as soon as they are half of all. Twenty take about five seconds.",
    )
    first_password_file = UnicodeTrait(
        "",
        config=True,
        help="A file with the first admin's password as JSON ({password, one_time}), read at the Hub's first start and "
        "then deleted. A file, since others may be able to read the Hub's arguments and environment.",
    )
    admin_password_file = UnicodeTrait(
        "",
        config=True,
        help="The file with the first admin's one-time password in plain text; deleted when the admin gets another one.",
    )

    homes = UnicodeTrait(
        "",
        config=True,
        help="The directory of homes, if a user's home and namespace are found by the name alone, as on a workstation: "
        "the name of a deleted user can then not be used again until an admin hands over what the user left. Empty if "
        "namespaces store their owner, as in a cluster.",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # only an admin can give somebody a password, which is the permission to log in
        self.allow_all = True
        self._attempts = Attempts(
            Delays(self.failures_before_delay, self.first_delay, self.longest_delay),
            Delays(self.failures_anywhere, self.first_delay, self.longest_delay_anywhere),
        )
        self._hash_limiter = HashLimiter(self.most_waiting)
        self._handed_over: set[str] = set()
        self._nobody = hash_password(base64.b64encode(os.urandom(12)).decode())

    def validate_username(self, username: str) -> bool:
        """Return True for a name that the Hub accepts, and that has only printable characters.

        Others would break a line, be invisible or reverse the text direction in logs and on pages.
        """
        return bool(super().validate_username(username)) and username.isprintable() and len(username) <= _LONGEST_NAME

    @property
    def name_rule(self) -> str:
        """Which names `validate_username` accepts, in words."""
        pattern = f" It must match {self.username_pattern}." if self.username_pattern else ""
        return (
            f"A name has 1 to {_LONGEST_NAME} printable characters, without a slash, without blanks at its ends and not only "
            f"dots.{pattern}"
        )

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Check a name and a password; `data` is the log-in form or the ``auth`` of a token request.

        Raises
        ------
        OneTimePasswordGiven
            They are right, and the password is a one-time password.
        HTTPError
            403: too many failures, or the one-time password has expired. 429: too many log-ins wait.
        """
        name: str = self.normalize_username(str(data.get("username", "")))
        if len(name) > _LONGEST_NAME:
            self.log.warning("Log-in with a name of %d characters refused", len(name))
            return None
        if not await self.check_password(handler, name, str(data.get("password", "")), self._place(handler, name)):
            self.log.warning("Log-in as %r failed", name[:64])
            return None
        user = orm.User.find(handler.db, name)
        state = password_state(handler.db, user)
        if state is PasswordState.EXPIRED:
            self.log.warning("Log-in as %r refused: the one-time password has expired", name[:64])
            raise web.HTTPError(403, "This one-time password has expired. Ask an admin for another.")
        if state is PasswordState.ONE_TIME:
            raise OneTimePasswordGiven(name)
        self.remember_browser(handler, name)
        return name

    async def check_password(self, handler: Any, name: str, password: str, place: Place) -> bool:
        """Return whether the password is the user's, and count a failure for the name and place if not.

        Raises
        ------
        HTTPError
            403: too many failures; the message says how long to wait. 429: too many log-ins wait.
        """
        self._refuse_locked(name, place)
        row = find_password(handler.db, name)
        # hash also for an unknown name: the time of the answer must not tell which names exist
        kept = str(row.hash) if row else self._nobody
        async with self._hash_limiter.slot(name, place):
            # check again: of many attempts sent at once, the first may have failed while the others waited
            self._refuse_locked(name, place)
            good = len(password) <= MAX_LENGTH and await asyncio.to_thread(verify_password, password, kept)
            if not (good and row):
                self._attempts.failed(name, place)
                return False
        self._attempts.succeeded(name, place)
        return True

    async def is_password(self, db: Session, name: str, password: str) -> bool:
        """Return whether the password is the current one of a user who is authenticated already.

        Raises
        ------
        HTTPError
            429: too many log-ins wait.
        """
        row = find_password(db, name)
        if row is None:
            return False
        async with self._hash_limiter.slot(name, _PROVED):
            return await asyncio.to_thread(verify_password, password[:MAX_LENGTH], str(row.hash))

    def _refuse_locked(self, name: str, place: Place) -> None:
        """Refuse a name with too many failures.

        Raises
        ------
        HTTPError
            403: the message says how long to wait.
        """
        if wait := self._attempts.remaining(name, place):
            self.log.warning("Log-in as %r refused: locked for another %.0f s", name[:64], wait)
            raise web.HTTPError(403, f"Too many wrong passwords for this name. Try again in {_span(wait)}.")

    # Browsers that a user has logged in with before

    def _place(self, handler: Any, name: str) -> Place:
        marked = handler.get_secure_cookie(_browser_cookie(name), max_age_days=_BROWSER_DAYS)
        if marked:
            return Place(marked.decode("ascii", "replace"), known=True)
        trusted = getattr(handler.settings.get("app"), "trusted_downstream_ips", ())
        return place_of(handler.request, tuple(trusted))

    def remember_browser(self, handler: Any, name: str) -> None:
        """Mark the browser as known for this user; the cookie gives no access."""
        handler._set_cookie(  # noqa: SLF001 - JupyterHub's way for all of its cookies
            _browser_cookie(name),
            base64.b32encode(os.urandom(10)).decode(),
            path=handler.hub.base_url,
            expires_days=_BROWSER_DAYS,
        )

    # Setting passwords

    def refuse_weak(self, password: str, name: str) -> None:
        """Refuse a new password that is too weak.

        Raises
        ------
        HTTPError
            400: the message says why it is too weak.
        """
        if trouble := check_strength(password, name):
            raise web.HTTPError(400, trouble)

    async def set_password(self, db: Session, user: orm.User, password: str, *, one_time: bool) -> None:
        """Set a user's password.

        Raises
        ------
        HTTPError
            400: it is too weak; the message says why. 429: too many log-ins wait.
        """
        self.refuse_weak(password, user.name)
        async with self._hash_limiter.slot(user.name, _PROVED):
            hashed = await asyncio.to_thread(hash_password, password)
        store_password(db, user, hashed, one_time=one_time, lifetime=self.one_time_lifetime)
        if self.admin_password_file and user.name in self.admin_users:
            _remove(Path(self.admin_password_file))

    def hand_over(self, db: Session, name: str) -> None:
        """Allow the next user of this name to have what a former one left."""
        forget(db, name)
        self._handed_over.add(name)

    def refuse_former(self, db: Session, name: str, user: orm.User | None = None) -> None:
        """Refuse a name of a former user who left a home or resources, for a new user or for `user` to be renamed.

        Raises
        ------
        ValueError
            Something is left; the message says what it is and what to do about it.
        """
        if not self.homes or name in self._handed_over:
            return
        if left := what_is_left(db, name, Path(self.homes), user):
            raise ValueError(left)

    def renamed(self, db: Session, user: orm.User, old: str) -> None:
        """Note the name that a user had until now: what they left under it is not for another user of that name."""
        forget(db, user.name)
        if self.homes:
            remember(db, old, user)

    def delete_user(self, user: Any) -> None:
        """Note the name of a user whom the Hub is about to delete."""
        super().delete_user(user)
        orm_user = getattr(user, "orm_user", user)
        if self.homes and (db := object_session(orm_user)) is not None:
            remember(db, orm_user.name, orm_user)

    async def add_user(self, user: Any) -> None:
        """Check a new user's name, and set the first admin's password.

        The Hub calls this for each existing user at its start, and for each new one.

        Raises
        ------
        ValueError
            The name of a new user is that of a former one.
        """
        super().add_user(user)
        orm_user = getattr(user, "orm_user", user)
        db = object_session(orm_user)
        if orm_user is not user and db is not None:  # a new user: at its start the Hub passes rows of its database
            self.refuse_former(db, user.name)
            self._handed_over.discard(user.name)
        if db is None or user.name not in self.admin_users or not self.first_password_file:
            return
        file = Path(self.first_password_file)
        first = _read_first_password(file)
        if first is None:
            return
        for table in (PasswordRow, OneTimeRow):
            table.__table__.create(db.get_bind(), checkfirst=True)
        if password_state(db, user) is PasswordState.OWN:
            self.log.warning("%s has a password of their own; the first one is not used", user.name)
            _remove(file)
            return
        hashed = await asyncio.to_thread(hash_password, first["password"])
        store_password(db, user, hashed, one_time=first["one_time"])
        _remove(file)

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """Return the handlers for log-in, passwords, users and starts; they come before the Hub's own."""
        del app
        return [*authenticator_handlers(), *replacing_handlers()]


def _browser_cookie(name: str) -> str:
    return f"llmos-browser-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _read_first_password(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
