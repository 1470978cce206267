"""Setting: a platform setting with its default, its value and the value's source."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from llmos.resources.base import Model, ObjectMeta, Resource, StoredAs

__all__ = ["Setting", "SettingSpec", "SettingStatus"]


class SettingSpec(Model):
    """The value that an admin sets."""

    value: str | None = Field(default=None, max_length=65536)
    """The value; if unset, the default applies."""


class SettingStatus(Model):
    """The value in effect and its source."""

    value: str = ""
    """The value in effect."""
    default: str = ""
    """The value if none is set."""
    source: Literal["environment", "resource", "default"] = "default"
    """Source of the value; the environment takes precedence over the resource."""
    description: str = ""
    """Effect and unit of the setting."""


class Setting(Resource):
    """A platform setting with its default, its value and the value's source."""

    plural: ClassVar[str] = "settings"
    singular: ClassVar[str] = "setting"
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    stored_as: ClassVar[StoredAs] = "Database"
    columns: ClassVar[tuple[tuple[str, str], ...]] = (("VALUE", "status.value"), ("SOURCE", "status.source"))

    kind: Literal["Setting"] = "Setting"
    metadata: ObjectMeta
    spec: SettingSpec = Field(default_factory=SettingSpec)
    status: SettingStatus = Field(default_factory=SettingStatus)
