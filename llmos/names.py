"""Names that several parts of the platform derive in the same way."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = [
    "GROUPS",
    "KEY_INSTANCE",
    "KEY_KIND",
    "KEY_MANAGED_BY",
    "KEY_NAME",
    "KEY_OWNER",
    "KEY_OWNER_CREATED",
    "KEY_OWNER_KIND",
    "KEY_PART",
    "KEY_PREPARED",
    "MODELS_CLAIM",
    "PERSONAL",
    "STORAGE_FINALIZER",
    "WORKLOADS_FINALIZER",
    "group_namespace",
    "invoke_note",
    "slug",
    "token_notes",
    "user_namespace",
]

PERSONAL: Final = "user-"
"""Prefix of the namespaces that belong to one user."""
GROUPS: Final = "group-"
"""Prefix of the namespaces that the members of a group share."""

KEY_KIND: Final = "llmos.ai/kind"
"""Label with the kind that a pod runs for: a resource's, or ``Server``."""
KEY_NAME: Final = "llmos.ai/name"
"""Label with the name of the resource or server that a pod runs for."""
KEY_PART: Final = "llmos.ai/part"
"""Label with the part of a resource's workloads; pods that people start don't have it."""
KEY_OWNER_KIND: Final = "llmos.ai/owner-kind"
"""Label with the kind of a namespace's owner: ``user``, ``group`` or ``platform``."""
KEY_OWNER: Final = "llmos.ai/owner"
"""Annotation with the Hub's name of the user or group; a label value can't hold every name."""
KEY_OWNER_CREATED: Final = "llmos.ai/owner-created"
"""Annotation with the time the Hub created the user: a name may be deleted and created again for another person."""
KEY_PREPARED: Final = "llmos.ai/prepared"
"""Annotation with the hash of the contents applied last; without it no pods should be started in the namespace."""
KEY_INSTANCE: Final = "app.kubernetes.io/instance"
"""Label with the release's name; on the objects of a workload, with its resource's."""
KEY_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

MODELS_CLAIM: Final = "llmos-models"
"""Volume claim of a namespace for downloaded models: a cache, which may be deleted with the namespace."""
WORKLOADS_FINALIZER: Final = "llmos.ai/workloads"
"""Finalizer of resources with workloads."""
STORAGE_FINALIZER: Final = "llmos.ai/storage"
"""Finalizer of volumes and snapshots."""

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
    return f"{GROUPS}{slug(group)}"


def invoke_note(user: str, server: str) -> str:
    """Return the note on the token that a server gets for models, by which the token is found to delete it."""
    return f"llmos-invoke {user}/{server}"


def token_notes(user: str, server: str, base_url: str) -> tuple[str, str]:
    """Return the notes on all tokens of a server: the one for models, and the Hub's for the server itself.

    Parameters
    ----------
    base_url
        The path of the user's servers.
    """
    path = base_url.rstrip("/") + "/" + (f"{server}/" if server else "")
    return invoke_note(user, server), f"Server at {path}"
