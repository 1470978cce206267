"""Passwords in the Hub's database as scrypt hashes (RFC 7914), and the end of sessions and tokens when one is replaced.

Each is tied to the user's row: renaming a user keeps the password, deleting a user deletes it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from jupyterhub import orm
from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Integer, Unicode
from sqlalchemy.orm import Session
from tornado import web

__all__ = [
    "OneTimePasswordGiven",
    "OneTimeRow",
    "PasswordRow",
    "PasswordState",
    "end_sessions",
    "end_tokens",
    "find_password",
    "hash_password",
    "password_state",
    "people_tokens",
    "store_password",
    "verify_password",
]

# The second of OWASP's settings (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html):
# 32 MiB and about a quarter of a second, so that a small machine can check two at a time.
_N: Final = 2**15
_R: Final = 8
_P: Final = 3
_MAX_MEMORY: Final = 64 * 1024 * 1024
_HUB_CLIENT: Final = "jupyterhub"
"""The OAuth client of tokens that users make; tokens of browsers have the client of the server they were made for."""


class PasswordRow(orm.Base):
    """A user's password.

    Attributes
    ----------
    user_id
        Id of the user in the Hub.
    hash
        The hash, as returned by `hash_password`.
    one_time
        True for a password set by somebody else, which only gives access to the page for choosing another.
    """

    __tablename__ = "llmos_passwords"
    user_id = Column(Integer, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    hash = Column(Unicode(255), nullable=False)
    one_time = Column(Boolean, nullable=False, default=False)


class OneTimeRow(orm.Base):
    """The expiry of a one-time password; the first admin's doesn't expire.

    A table of its own, as JupyterHub creates missing tables at its start, but not missing columns.

    Attributes
    ----------
    user_id
        Id of the user in the Hub.
    expires_at
        Time in UTC without a time zone, as in the Hub's own tables.
    """

    __tablename__ = "llmos_one_time_passwords"
    user_id = Column(Integer, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    expires_at = Column(DateTime, nullable=False)


class OneTimePasswordGiven(web.HTTPError):
    """A log-in with a valid one-time password; the log-in page redirects to the choice of another, others refuse it."""

    def __init__(self, name: str) -> None:
        super().__init__(403, "This is a one-time password. Choose your own first: log in with it on the Hub's page.")
        self.name = name


class PasswordState(StrEnum):
    """The state of a user's password."""

    NONE = "none"
    ONE_TIME = "one-time"
    EXPIRED = "expired"
    OWN = "own"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    # a lone surrogate, which JSON can carry, must not raise: such a password is simply wrong (`check_strength` refuses it)
    secret = password.encode(errors="surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


def hash_password(password: str) -> str:
    """Return the hash to store: ``scrypt$N$r$p$salt$hash``, with salt and hash in base 64."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _N, _R, _P)
    return "$".join(
        ["scrypt", str(_N), str(_R), str(_P), base64.b64encode(salt).decode(), base64.b64encode(digest).decode()]
    )


def verify_password(password: str, kept: str) -> bool:
    """Return whether `kept` is a hash of this password, in constant time."""
    _, n, r, p, salt, digest = kept.split("$")
    computed = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(computed, base64.b64decode(digest))


def find_password(db: Session, name: str) -> PasswordRow | None:
    """Return the password row of a user by name."""
    row: PasswordRow | None = (
        db.query(PasswordRow).join(orm.User, orm.User.id == PasswordRow.user_id).filter(orm.User.name == name).first()
    )
    return row


def store_password(db: Session, user: orm.User, hashed: str, *, one_time: bool, lifetime: float | None = None) -> None:
    """Store a hash; `lifetime` is the validity of a one-time password in seconds, None for no expiry."""
    db.merge(PasswordRow(user_id=user.id, hash=hashed, one_time=one_time))
    db.query(OneTimeRow).filter(OneTimeRow.user_id == user.id).delete()
    if one_time and lifetime is not None:
        db.add(OneTimeRow(user_id=user.id, expires_at=_now() + timedelta(seconds=lifetime)))
    db.commit()


def password_state(db: Session, user: orm.User) -> PasswordState:
    """Return the state of a user's password."""
    row = db.get(PasswordRow, user.id)
    if row is None:
        return PasswordState.NONE
    if not row.one_time:
        return PasswordState.OWN
    end = db.get(OneTimeRow, user.id)
    return PasswordState.EXPIRED if end is not None and end.expires_at < _now() else PasswordState.ONE_TIME


def end_sessions(db: Session, user: orm.User) -> None:
    """Log a user out everywhere: of the Hub, and of every server and service that was opened through it."""
    user.cookie_id = orm.new_token()
    for token in list(user.api_tokens):
        if token.client_id != _HUB_CLIENT:
            db.delete(token)
    db.query(orm.OAuthCode).filter(orm.OAuthCode.user_id == user.id).delete()
    db.commit()


def people_tokens(user: orm.User, of_servers: Callable[[Any], bool]) -> list[Any]:
    """Return the tokens that a user has made, without those of their running servers."""
    return [token for token in user.api_tokens if token.client_id == _HUB_CLIENT and not of_servers(token)]


def end_tokens(db: Session, user: orm.User, of_servers: Callable[[Any], bool]) -> int:
    """Delete the tokens that a user has made, except those of running servers (`of_servers`); return their number."""
    tokens = people_tokens(user, of_servers)
    for token in tokens:
        db.delete(token)
    db.commit()
    return len(tokens)
