"""The rules for Volumes: they grow and never shrink, aren't deleted under their users, and rest after their deletion."""

from __future__ import annotations

from datetime import timedelta

from llmos.errors import Cause, Conflict, Invalid, NotFound
from llmos.resources import Snapshot, Volume
from llmos.resources.base import utcnow
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.settings import VOLUME_REST
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.base import Store

__all__ = ["KIND", "RULES", "VolumeRules"]


class VolumeRules(KindRules[Volume]):
    """The rules for Volumes."""

    async def admit(self, new: Volume, old: Volume | None, reader: Store) -> None:
        """Refuse to shrink, to change the source, and to restore what is in use.

        Raises
        ------
        Invalid
            The error names the field.
        Conflict
            It is in use; the message says by what.
        """
        if old is not None and not old.unread and new.spec.size_bytes < old.spec.size_bytes:
            text = f"{new.spec.size} is less than the {old.spec.size} that the volume has. A volume can grow, never shrink."
            raise Invalid(f"spec.size: {text}", causes=[Cause("spec.size", text)])

        if old is not None and not old.unread:
            before, after = old.spec, new.spec
            fields = {
                "accessMode": (before.access_mode, after.access_mode),
                "storageClass": (before.storage_class, after.storage_class),
            }
            causes = [Cause(f"spec.{name}", "it can't be changed") for name, (a, b) in fields.items() if a != b]
            if causes:
                raise Invalid("; ".join(map(str, causes)), causes=causes)
        if old is not None and not old.unread and new.spec.source not in (None, old.spec.source):
            text = "it can't be changed: it says what the volume was made from"
            raise Invalid(f"spec.source: {text}.", causes=[Cause("spec.source", text)])
        restore = new.spec.restore
        if restore is None or (old is not None and old.spec.restore == restore):
            return
        try:
            await reader.get(Snapshot, new.metadata.namespace, restore.snapshot)
        except NotFound:
            text = f'there is no snapshot "{restore.snapshot}" in {new.metadata.namespace}'
            raise Invalid(f"spec.restore.snapshot: {text}.", causes=[Cause("spec.restore.snapshot", text)]) from None
        if users := await users_of(reader, new):
            name = new.metadata.name
            raise Conflict(f"{name} is in use by {', '.join(users[:5])}. Stop what uses it, then restore {name}.")

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
