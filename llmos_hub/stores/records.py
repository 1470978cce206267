"""How a resource lies in the database: a line ``REVISION UID``, and JSON.

The revision stands before the JSON, not in it, since the script that counts it also writes it and the
server should not have to take the JSON apart. Write-only fields are taken out of ``spec`` and lie
encrypted in a map ``sealed`` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from llmos.errors import Forbidden
from llmos.resources.base import Resource, invalid
from llmos_hub.stores.sealing import SealBroken, Sealer

__all__ = ["Codec", "Record", "Unreadable"]

R = TypeVar("R", bound=Resource)


class Unreadable(Exception):
    """A value that this version can't read: written by a newer one, sealed with another key, or damaged."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value as it is stored.

    Attributes
    ----------
    revision
        The store-wide count of changes at which it was written.
    uid
        The resource's uid.
    body
        The resource as JSON, without resourceVersion and with its secrets sealed.
    """

    revision: int
    uid: str
    body: bytes

    @classmethod
    def split(cls, raw: bytes) -> Record:
        """Take a stored value apart.

        Raises
        ------
        Unreadable
            It isn't one.
        """
        head, found, body = raw.partition(b"\n")
        revision, _, uid = head.partition(b" ")
        if not found or not revision.isdigit():
            message = "not a resource"
            raise Unreadable(message)
        return cls(int(revision), uid.decode("ascii", "replace"), body)


class Codec:
    """Turns resources into stored JSON and back.

    Parameters
    ----------
    sealer
        Encrypts the write-only fields.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def encode(self, resource: Resource, sealed: Mapping[str, str] | None = None) -> bytes:
        """The JSON to store.

        Parameters
        ----------
        resource
            What to store, with its secrets in the clear.
        sealed
            The secrets as they are stored already, where ``spec`` doesn't change: they are kept untouched,
            so that a process without the key can write a status.

        Raises
        ------
        Forbidden
            The kind has secrets and this process has no key to seal them.
        """
        data = resource.dump()
        data["metadata"].pop("resourceVersion", None)
        if resource.write_only:
            secrets = {name: data["spec"].pop(name, None) for name in _secret_names(resource)}
            data["sealed"] = dict(sealed) if sealed is not None else self._seal(resource, secrets)
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()

    def _seal(self, resource: Resource, secrets: Mapping[str, Any]) -> dict[str, str]:
        if not self._sealer.has_key:
            message = (
                f'{resource.kind} "{resource.key}" holds secrets, which this process may not write: it has no key.'
            )
            raise Forbidden(message)
        return {
            name: self._sealer.seal(value, _place(resource.plural, resource.metadata.uid, name))
            for name, value in secrets.items()
            if value is not None
        }

    def sealed(self, body: bytes) -> dict[str, str]:
        """The sealed fields of a stored JSON, as they are."""
        sealed = json.loads(body).get("sealed", {})
        return dict(sealed)

    def decode(self, kind: type[R], body: bytes, revision: int) -> R:
        """The resource that a stored JSON stands for, with its secrets where this process has the key.

        Raises
        ------
        Unreadable
            Written by a newer version, sealed with another key, or damaged.
        """
        try:
            resource = kind.model_validate(self._unsealed(kind, body)) if kind.write_only else None
            resource = resource or kind.model_validate_json(body)
        except ValidationError as error:
            raise Unreadable(str(invalid(error, kind).message)) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # not JSON, or of another shape
            raise Unreadable(str(error)) from None
        except SealBroken as error:
            raise Unreadable(str(error)) from None
        resource.metadata.resource_version = str(revision)
        return resource

    def _unsealed(self, kind: type[Resource], body: bytes) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(body)
        sealed = data.pop("sealed", {})
        if self._sealer.has_key:
            for name, token in sealed.items():
                data["spec"][name] = self._sealer.open(token, _place(kind.plural, data["metadata"]["uid"], name))
        return data


def _place(plural: str, uid: str | None, name: str) -> str:
    """What a ciphertext is bound to; the uid is never used again, so neither is the place."""
    return f"{plural}/{uid}/spec.{name}"


def _secret_names(resource: Resource) -> list[str]:
    """The write-only fields as JSON names them."""
    fields = type(resource.spec).model_fields
    return [fields[name].alias or name for name in resource.write_only]
