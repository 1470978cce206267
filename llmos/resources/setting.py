"""Setting: a platform setting with its default, its value and where that comes from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from llmos.resources.base import Model, ObjectMeta, Resource, StoredAs

__all__ = ["Setting", "SettingSpec", "SettingStatus"]


class SettingSpec(Model):
    """What an admin wants."""

    value: str | None = Field(default=None, max_length=65536)
    """The value; unset, the default counts."""


class SettingStatus(Model):
    """What counts, and why."""

    value: str = ""
    """The value in force."""
    default: str = ""
    """The value where nobody sets one."""
    source: Literal["environment", "resource", "default"] = "default"
    """Where the value comes from; the environment wins over the resource."""
    description: str = ""
    """What it does, and its unit."""


class Setting(Resource):
    """A platform setting with its default, its value and where that comes from."""

    plural: ClassVar[str] = "settings"
    singular: ClassVar[str] = "setting"
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    stored_as: ClassVar[StoredAs] = "Database"
    columns: ClassVar[tuple[tuple[str, str], ...]] = (("VALUE", "status.value"), ("SOURCE", "status.source"))

    kind: Literal["Setting"] = "Setting"
    metadata: ObjectMeta
    spec: SettingSpec = Field(default_factory=SettingSpec)
    status: SettingStatus = Field(default_factory=SettingStatus)
