"""What holds for Credentials: their keys are told, their values never."""

from __future__ import annotations

from llmos.resources import Credential
from llmos.resources.base import utcnow
from llmos.resources.credential import CredentialStatus
from llmos_hub.managers.rules import KindRules

__all__ = ["CredentialRules"]


class CredentialRules(KindRules[Credential]):
    """Keeps ``status.keys`` and ``status.lastChanged``; no controller is needed for that."""

    def status_after(self, old: Credential | None, stored: Credential) -> Credential | None:
        """The keys and now, where a value changed."""
        if old is not None and old.spec.data == stored.spec.data:
            return None
        status = CredentialStatus(keys=sorted(stored.spec.data), last_changed=utcnow())
        return stored.model_copy(update={"status": status})

    async def present(self, resource: Credential) -> Credential:
        """The keys as they are in the data, even when the status was not written any more after a change."""
        status = resource.status.model_copy(update={"keys": sorted(resource.spec.data)})
        return resource.model_copy(update={"status": status})
