"""The rules for Volumes: they grow and never shrink, aren't deleted under their users, and rest after their deletion."""

from __future__ import annotations

from datetime import timedelta

from llmos.errors import Cause, Conflict, Invalid
from llmos.resources import Volume
from llmos.resources.base import utcnow
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.settings import VOLUME_REST
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.base import Store

__all__ = ["KIND", "RULES", "VolumeRules"]


class VolumeRules(KindRules[Volume]):
    """The rules for Volumes."""

    async def admit(self, new: Volume, old: Volume | None, reader: Store) -> None:
        """Refuse to shrink.

        Raises
        ------
        Invalid
            The size is less than the stored one; the error names the field.
        """
        del reader
        if old is not None and not old.unread and new.spec.size_bytes < old.spec.size_bytes:
            text = f"{new.spec.size} is less than the {old.spec.size} that the volume has. A volume can grow, never shrink."
            raise Invalid(f"spec.size: {text}", causes=[Cause("spec.size", text)])

    async def deleting(self, old: Volume, reader: Store) -> Volume | None:
        """Return it with the end of its rest; None if it rests already, or is not to rest.

        Raises
        ------
        Conflict
            It is in use; the message says by what.
        """
        if users := await users_of(reader, old):
            name = old.metadata.name
            raise Conflict(f"{name} is in use by {', '.join(users[:5])}. Stop or delete what uses it, then {name}.")
        hours = await self._settings.value(VOLUME_REST)
        if old.rests_until is not None or not hours:
            return None
        until = utcnow() + timedelta(hours=hours)
        return old.model_copy(update={"spec": old.spec.model_copy(update={"delete_at": until})})


KIND, RULES = Volume, VolumeRules
