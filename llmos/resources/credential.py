"""Credential: secrets that other resources refer to and that the API never returns."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmos.resources.base import Model, ObjectMeta, Resource, StoredAs, Timestamp, Unit
from llmos.resources.cel import Pattern

__all__ = ["Credential", "CredentialSpec", "CredentialStatus"]

_KEY = Pattern(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", 'a key: letters, digits and "_", as environment variables are named')


class CredentialSpec(Model):
    """The secret values of a credential."""

    data: Annotated[dict[str, Annotated[str, Field(max_length=65536)]], AfterValidator(_KEY.check_keys)] = Field(
        default_factory=dict, max_length=50
    )
    """Keys and secret values, such as ``HF_TOKEN``. Write-only: reads don't return the values; ``status.keys``
    lists the keys. Applying the resource removes values that are left out."""


class CredentialStatus(Model):
    """The status of a credential, without secrets."""

    keys: list[str] = Field(default_factory=list)
    """Keys that have a value."""
    last_changed: Annotated[Timestamp | None, Unit("age")] = None
    """Time when a value was last written."""


class Credential(Resource):
    """Secrets that other resources refer to and that the API never returns."""

    plural: ClassVar[str] = "credentials"
    singular: ClassVar[str] = "credential"
    short_names: ClassVar[tuple[str, ...]] = ("cred",)
    columns: ClassVar[tuple[tuple[str, str], ...]] = (("KEYS", "status.keys"),)
    write_only: ClassVar[tuple[str, ...]] = ("data",)
    stored_as: ClassVar[StoredAs] = "Secret"

    kind: Literal["Credential"] = "Credential"
    metadata: ObjectMeta
    spec: CredentialSpec = Field(default_factory=CredentialSpec)
    status: CredentialStatus = Field(default_factory=CredentialStatus)
