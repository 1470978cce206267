"""Requirements for passwords, and one-time passwords that are easy to read aloud and type.

Imports the standard library alone: the supervisor uses it, which doesn't load JupyterHub.
"""

from __future__ import annotations

import secrets
from typing import Final

__all__ = ["MAX_LENGTH", "MIN_LENGTH", "check_strength", "make_password"]

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 1024
"""In characters; hashing a longer password would only cost time."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Short words that are unmistakable when read aloud or typed from a screen. There are 32 * 32 * 90 * 32 combinations,
# 21 bits: enough for a password that gives access to one page, expires, and is subject to the delays of
# `llmos_hub.accounts.attempts`.
_ADJECTIVES = _words(
    "amber ample bold brave brief bright brisk calm clear cosy crisp eager early fair fleet fresh "
    "gentle glad golden hardy keen light lively lucky mellow merry nimble plain quiet rapid sunny swift"
)
_ANIMALS = _words(
    "badger beaver bison crane dingo eagle egret falcon ferret finch gecko heron hornet ibis jackal kiwi "
    "lemur lynx marten marmot otter owl panda puffin quail raven robin seal stork tapir vole wren"
)
_PLACES = _words(
    "bay beach brook canal cape cave cliff cove creek delta dune fen field fjord glade grove "
    "harbor hill inlet island lagoon lake marsh meadow moor peak pond quay reef ridge shore valley"
)
_FIRST_TRIED: Final = (
    "password",
    "12345678",
    "123456789",
    "1234567890",
    "qwertyuiop",
    "jupyterhub",
)


def make_password() -> str:
    """Return a random one-time password such as ``mellow-otter-93-quay``."""
    number = 10 + secrets.randbelow(90)
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_ANIMALS)}-{number}-{secrets.choice(_PLACES)}"


def check_strength(password: str, user: str) -> str | None:
    """Return a message for the user about what is wrong with a new password; None if it is good."""
    if len(password) < MIN_LENGTH:
        return f"A password needs at least {MIN_LENGTH} characters."
    if len(password) > MAX_LENGTH:
        return f"A password may have at most {MAX_LENGTH} characters."
    if any(0xD800 <= ord(char) <= 0xDFFF for char in password):
        return "This password has half a character in it (a lone surrogate), which no keyboard types. Take another."
    if password.lower() in (user.lower(), *_FIRST_TRIED):
        return "This password is among the first that anyone would try. Take another."
    return None
