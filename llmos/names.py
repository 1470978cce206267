"""Names that have to come out the same wherever they are made."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["PERSONAL", "group_namespace", "slug", "user_namespace"]

PERSONAL: Final = "user-"
"""How the namespaces begin that belong to one person."""

_PLAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,46}[a-z0-9])?")


def slug(name: str) -> str:
    """A DNS label of at most 48 characters for any name: readable, safe as a file name, different for different names.

    A plain name stays as it is; another is stripped to what a label may hold and gets sixteen hex digits of
    its SHA-256: people may choose their names, and fewer digits could be tried out to hit somebody else's. A
    plain name that looks like such a result (``--`` in it) is hashed as well.

    >>> slug("ada"), slug("../x")
    ('ada', 'x--d6b96a97d147daaa')
    """
    if _PLAIN.fullmatch(name) and "--" not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    stripped = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30].strip("-") or "x"
    return f"{stripped}--{digest}"


def user_namespace(user: str) -> str:
    """The namespace that belongs to that person.

    >>> user_namespace("ada"), user_namespace("Ada.L@example.org")
    ('user-ada', 'user-ada-l-example-org--c224d202e0a08d17')
    """
    return f"{PERSONAL}{slug(user)}"


def group_namespace(group: str) -> str:
    """The namespace that belongs to that Hub group.

    >>> group_namespace("vision")
    'group-vision'
    """
    return f"group-{slug(group)}"
