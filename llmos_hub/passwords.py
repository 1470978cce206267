"""Passwords as the Hub keeps them: scrypt hashes (RFC 7914) in its own database.

Each is tied to the user's row: renaming a user keeps the password, deleting one deletes it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Final

from jupyterhub import orm
from sqlalchemy import Boolean, Column, ForeignKey, Integer, Unicode
from sqlalchemy.orm import Session

__all__ = [
    "MAX_LENGTH",
    "MIN_LENGTH",
    "PasswordRow",
    "check_strength",
    "find_password",
    "hash_password",
    "verify_password",
]

# OWASP's second choice (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html):
# 32 MiB and about a quarter of a second, so that a small machine can check two at once.
_N: Final = 2**15
_R: Final = 8
_P: Final = 3
_MAX_MEMORY: Final = 64 * 1024 * 1024
MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 1024
"""Characters; hashing a longer one would only cost time."""


class PasswordRow(orm.Base):
    """A person's password.

    Attributes
    ----------
    user_id
        The Hub's user.
    hash
        What `hash_password` made.
    one_time
        Set by someone else: the owner is asked for a new one at the next log-in.
    """

    __tablename__ = "llmos_passwords"
    user_id = Column(Integer, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    hash = Column(Unicode(255), nullable=False)
    one_time = Column(Boolean, nullable=False, default=False)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


def hash_password(password: str) -> str:
    """The hash to keep: ``scrypt$N$r$p$salt$hash``, salt and hash in base 64."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _N, _R, _P)
    return "$".join(
        ["scrypt", str(_N), str(_R), str(_P), base64.b64encode(salt).decode(), base64.b64encode(digest).decode()]
    )


def verify_password(password: str, kept: str) -> bool:
    """Whether `kept` is a hash of this password; takes as long where it isn't."""
    _, n, r, p, salt, digest = kept.split("$")
    computed = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(computed, base64.b64decode(digest))


def check_strength(password: str, user: str) -> str | None:
    """What is wrong with a password to be set, for the one who types it; None where nothing is."""
    if len(password) < MIN_LENGTH:
        return f"A password needs at least {MIN_LENGTH} characters."
    if len(password) > MAX_LENGTH:
        return f"A password may have at most {MAX_LENGTH} characters."
    if password.lower() in (
        user.lower(),
        "password",
        "12345678",
        "123456789",
        "1234567890",
        "qwertyuiop",
        "jupyterhub",
    ):
        return "This password is among the first that anyone would try. Take another."
    return None


def find_password(db: Session, name: str) -> PasswordRow | None:
    """The password row of a person by name."""
    row: PasswordRow | None = (
        db.query(PasswordRow).join(orm.User, orm.User.id == PasswordRow.user_id).filter(orm.User.name == name).first()
    )
    return row
