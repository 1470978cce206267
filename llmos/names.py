"""Names that several parts of the platform derive in the same way."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["PERSONAL", "group_namespace", "slug", "user_namespace"]

PERSONAL: Final = "user-"
"""Prefix of the namespaces that belong to one user."""

_PLAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,46}[a-z0-9])?")


def slug(name: str) -> str:
    """Return a DNS label of at most 48 characters for any name: readable, safe as a file name, and unique.

    A plain name stays unchanged. Any other is reduced to the characters of a label and gets sixteen hex digits of its
    SHA-256; with fewer digits people, who may choose their names, could find one that collides with somebody else's. A
    plain name that looks like such a result (with ``--`` in it) is hashed as well.

    >>> slug("ada"), slug("../x")
    ('ada', 'x--d6b96a97d147daaa')
    """
    if _PLAIN.fullmatch(name) and "--" not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    stripped = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30].strip("-") or "x"
    return f"{stripped}--{digest}"


def user_namespace(user: str) -> str:
    """Return the namespace of a user.

    >>> user_namespace("ada"), user_namespace("Ada.L@example.org")
    ('user-ada', 'user-ada-l-example-org--c224d202e0a08d17')
    """
    return f"{PERSONAL}{slug(user)}"


def group_namespace(group: str) -> str:
    """Return the namespace of a Hub group.

    >>> group_namespace("vision")
    'group-vision'
    """
    return f"group-{slug(group)}"
