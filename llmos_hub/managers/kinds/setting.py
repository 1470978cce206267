"""The rules for Settings: all defined ones are listed with their defaults, others can't be set."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from llmos.errors import Cause, Invalid, NotFound
from llmos.resources import ObjectMeta, Setting
from llmos.resources.setting import SettingStatus
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.settings import DEFINITIONS, Definition
from llmos_hub.stores.base import Store, WatchEvent

__all__ = ["KIND", "RULES", "SettingRules"]


class SettingRules(KindRules[Setting]):
    """The rules for Settings: all defined ones are listed, others can't be set."""

    async def admit(self, new: Setting, old: Setting | None, reader: Store) -> None:
        """Refuse unknown settings and invalid values.

        Raises
        ------
        Invalid
            The setting is unknown, or its value is not valid; the error names the field.
        """
        del old, reader
        definition = _defined(new.metadata.name)
        if new.spec.value is not None:
            try:
                definition.parse(new.spec.value)
            except ValueError as error:
                cause = Cause("spec.value", f"{error}. {definition.description}")
                raise Invalid(str(cause), causes=[cause]) from None

    async def present(self, resource: Setting) -> Setting:
        """Return it with value, default, source and description in its status."""
        definition = DEFINITIONS.get(resource.metadata.name)
        if definition is None:  # left from another version
            status = SettingStatus(
                value=resource.spec.value or "", description="Not known to this version: not in use."
            )
            return resource.model_copy(update={"status": status})
        value, source = self._settings.in_force(definition, resource.spec.value)
        status = SettingStatus.model_validate(
            {
                "value": value,
                "default": str(definition.default),
                "source": source,
                "description": f"{definition.description} Environment: {definition.variable}.",
            }
        )
        return resource.model_copy(update={"status": status})

    async def absent(self, name: str) -> Setting | None:
        """Return the setting with its default.

        Raises
        ------
        NotFound
            The setting is not defined; the message suggests a similar name.
        """
        try:
            definition = _defined(name)
        except Invalid as error:
            raise NotFound(error.message.removeprefix("metadata.name: ")) from None
        return await self.present(Setting(metadata=ObjectMeta(name=definition.name)))

    async def all_absent(self, stored: Sequence[Setting]) -> Sequence[Setting]:
        """Return all settings that are not stored."""
        there = {s.metadata.name for s in stored}
        return [await self.present(Setting(metadata=ObjectMeta(name=n))) for n in DEFINITIONS if n not in there]

    async def present_event(self, event: WatchEvent[Setting]) -> WatchEvent[Setting]:
        """Return the event as it is shown: a deleted Setting is one that is back to its default."""
        if event.type == "DELETED" and event.resource is not None and event.resource.metadata.name in DEFINITIONS:
            fallback = await self.absent(event.resource.metadata.name)
            return WatchEvent("MODIFIED", fallback, event.resource_version)
        return await super().present_event(event)


KIND, RULES = Setting, SettingRules


def _defined(name: str) -> Definition:
    if name in DEFINITIONS:
        return DEFINITIONS[name]
    close = difflib.get_close_matches(name, DEFINITIONS, n=1)
    meant = f'Did you mean "{close[0]}"?' if close else f"Settings: {', '.join(sorted(DEFINITIONS))}."
    cause = Cause("metadata.name", f'there is no setting "{name[:80]}". {meant}')
    raise Invalid(str(cause), causes=[cause])
