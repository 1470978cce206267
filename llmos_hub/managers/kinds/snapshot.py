"""The rules for Snapshots: of one volume for ever, and not deleted while something is filled with them."""

from __future__ import annotations

from llmos.errors import Cause, Conflict, Invalid, NotFound
from llmos.resources import Snapshot, Volume
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.base import Store

__all__ = ["KIND", "RULES", "SnapshotRules"]


class SnapshotRules(KindRules[Snapshot]):
    """The rules for Snapshots."""

    async def admit(self, new: Snapshot, old: Snapshot | None, reader: Store) -> None:
        """Refuse another volume, and one that doesn't exist.

        Raises
        ------
        Invalid
            The error names the field.
        """
        text = ""
        if old is None:
            try:
                await reader.get(Volume, new.metadata.namespace, new.spec.volume)
            except NotFound:
                text = f'there is no volume "{new.spec.volume}" in {new.metadata.namespace}'
        elif not old.unread and new.spec.volume != old.spec.volume:
            text = "it can't be changed: make another snapshot"
        if text:
            raise Invalid(f"spec.volume: {text}.", causes=[Cause("spec.volume", text)])

    async def deleting(self, old: Snapshot, reader: Store) -> Snapshot | None:
        """Refuse to delete one from which a volume is being filled.

        Raises
        ------
        Conflict
            With the volume's name.
        """
        if users := await users_of(reader, old):
            raise Conflict(
                f"{old.metadata.name} is in use: {', '.join(users[:5])} is being filled with it. Wait for that."
            )
        return None


KIND, RULES = Snapshot, SnapshotRules
