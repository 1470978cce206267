"""Log-in with a name and a password that the Hub keeps, for a workstation without an identity provider.

Admins make the accounts; nobody signs up. A password that someone else has set is good for getting in and
is replaced by one's own on the page that follows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from jupyterhub import orm
from jupyterhub.auth import Authenticator
from sqlalchemy.orm import Session, object_session
from tornado import web
from traitlets import Float
from traitlets import Integer as IntegerTrait
from traitlets import Unicode as UnicodeTrait

from llmos_hub.hub_handlers import authenticator_handlers
from llmos_hub.passwords import MAX_LENGTH, PasswordRow, check_strength, find_password, hash_password, verify_password

__all__ = ["LLMOSAuthenticator"]

_LONGEST_NAME: Final = 255
"""Characters of a name, as many as the Hub's database has; a longer one is nobody's and is not remembered either."""


class _Attempts:
    """Failed log-ins by name, for names that exist as for those that don't.

    After `free` failures each further one doubles the time for which the name is locked, up to `longest`
    seconds: guessing gets nowhere, and one who is locked out by somebody else is so for minutes, not for good.
    """

    _KEPT = 10_000  # names; the oldest are forgotten, so that names made up at random don't fill the memory

    def __init__(self, free: int, first: float, longest: float) -> None:
        self._free, self._first, self._longest = free, first, longest
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def locked_for(self, name: str) -> float:
        """Seconds until the name may be tried again."""
        _, until = self._failed.get(name, (0, 0.0))
        return max(0.0, until - time.monotonic())

    def failed(self, name: str) -> None:
        """Count a failure."""
        count = self._failed.pop(name, (0, 0.0))[0] + 1
        over = count - self._free
        wait = min(self._longest, self._first * 2 ** min(over, 30)) if over >= 0 else 0.0
        self._failed[name] = (count, time.monotonic() + wait)
        if len(self._failed) > self._KEPT:
            self._failed.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget the failures."""
        self._failed.pop(name, None)


class LLMOSAuthenticator(Authenticator):
    """Names and passwords kept by the Hub."""

    failures_before_delay = IntegerTrait(
        5,
        config=True,
        help="How many wrong passwords for a name are answered at once. Five leave room for a typing error or two.",
    )
    first_delay = Float(
        5.0,
        config=True,
        help="Seconds for which a name is locked after one wrong password too many; doubles with each further one.",
    )
    longest_delay = Float(
        900.0,
        config=True,
        help="The longest lock in seconds. A quarter of an hour: 100 guesses a day, and whoever is locked out by "
        "someone else's guesses gets in again the same day.",
    )
    first_password_file = UnicodeTrait(
        "",
        config=True,
        help="A file with the first admin's password as JSON ({password, one_time}); read at the Hub's first start and "
        "deleted. A file, since the Hub's arguments and environment can be read by others.",
    )
    admin_password_file = UnicodeTrait(
        "",
        config=True,
        help="Where the first admin's one-time password was left for reading; deleted when the admin chooses another.",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # whoever has a password was given it by an admin
        self.allow_all = True
        self._attempts = _Attempts(self.failures_before_delay, self.first_delay, self.longest_delay)
        # a hash costs 32 MiB while it is computed: two at a time
        self._hashing = asyncio.Semaphore(2)
        self._nobody = hash_password(base64.b64encode(os.urandom(12)).decode())

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Check a name and a password (`data` is the log-in form's, or a token request's ``auth``)."""
        name: str = self.normalize_username(str(data.get("username", "")))
        password = str(data.get("password", ""))
        if len(name) > _LONGEST_NAME:
            self.log.warning("Log-in with a name of %d characters refused", len(name))
            return None
        self._refuse_locked(name)
        row = find_password(handler.db, name)
        # a name that doesn't exist takes as long as one that does
        kept = str(row.hash) if row else self._nobody
        async with self._hashing:
            # again: many may have been sent at once, and the first of them failed while the others waited
            self._refuse_locked(name)
            good = len(password) <= MAX_LENGTH and await asyncio.to_thread(verify_password, password, kept)
            if not (good and row):
                self._attempts.failed(name)
                self.log.warning("Log-in as %r failed", name[:64])
                return None
        self._attempts.succeeded(name)
        return name

    def _refuse_locked(self, name: str) -> None:
        """Refuse a name for which there were too many wrong passwords.

        Raises
        ------
        HTTPError
            403: the message says for how long.
        """
        if wait := self._attempts.locked_for(name):
            self.log.warning("Log-in as %r refused: locked for another %.0f s", name[:64], wait)
            raise web.HTTPError(403, f"Too many wrong passwords for this name. Try again in {_span(wait)}.")

    async def set_password(self, db: Session, user: orm.User, password: str, *, one_time: bool) -> None:
        """Set a person's password.

        Raises
        ------
        HTTPError
            400: it is too weak; the message says how.
        """
        if trouble := check_strength(password, user.name):
            raise web.HTTPError(400, trouble)
        async with self._hashing:
            hashed = await asyncio.to_thread(hash_password, password)
        db.merge(PasswordRow(user_id=user.id, hash=hashed, one_time=one_time))
        db.commit()
        self._attempts.succeeded(user.name)
        if not one_time and self.admin_password_file and user.name in self.admin_users:
            _remove(Path(self.admin_password_file))

    async def add_user(self, user: orm.User) -> None:
        """As the Hub asks for every user at its start: the first admin gets the first password."""
        super().add_user(user)
        db = object_session(user)
        if db is None or user.name not in self.admin_users or not self.first_password_file:
            return
        file = Path(self.first_password_file)
        first = _read_first_password(file)
        if first is None:
            return
        # given by whoever starts the platform, who may choose a weak one for a try
        hashed = await asyncio.to_thread(hash_password, first["password"])
        PasswordRow.__table__.create(db.get_bind(), checkfirst=True)
        db.merge(PasswordRow(user_id=user.id, hash=hashed, one_time=first["one_time"]))
        db.commit()
        _remove(file)

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """The log-in page, in place of the Hub's own, and the page for one's own password."""
        del app
        return authenticator_handlers()


def _read_first_password(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _remove(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
