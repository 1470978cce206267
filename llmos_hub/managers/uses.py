"""The users of a resource, as far as resources say it of themselves (`llmos.resources.Resource.uses`)."""

from __future__ import annotations

from llmos.resources import KINDS, Resource
from llmos_hub.stores.base import Store

__all__ = ["users_of"]

_PAGE = 100


async def users_of(reader: Store, resource: Resource) -> list[str]:
    """Return the resources of its namespace that use a resource, each as ``modelservice/chat``, sorted."""
    used, namespace = (resource.kind, resource.metadata.name), resource.metadata.namespace
    found = []
    for kind in KINDS.values():
        if kind.scope != "Namespaced" or kind.uses is Resource.uses:  # no resource of the kind uses another
            continue
        token = ""
        while True:
            page = await reader.page(kind, namespace, limit=_PAGE, token=token)
            found += [
                f"{kind.singular}/{each.metadata.name}"
                for each in page.items
                if not each.unread and each.metadata.deletion_timestamp is None and used in each.uses
            ]
            if not (token := page.token):
                break
    return sorted(found)
