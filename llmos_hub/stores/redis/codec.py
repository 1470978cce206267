"""The form of resources in the database: a line ``REVISION UID``, then JSON.

The revision precedes the JSON, since the script that increments it also writes it and the
server should not have to parse the JSON. Write-only fields are taken out of ``spec`` and stored
encrypted in the map ``sealed`` beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from llmos.errors import Forbidden
from llmos.resources.base import Resource, invalid
from llmos_hub.stores.redis.sealing import SealBroken, Sealer
from llmos_hub.stores.salvage import Unreadable, refuse_unread, salvaged

__all__ = ["Codec", "StoredValue"]

R = TypeVar("R", bound=Resource)

_REVISION = re.compile(rb"[0-9]{0,16}")
"""The revision, matched as the writing script does."""
_OTHER_SHAPE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors raised for a value that is not JSON, has another shape, or is nested too deeply."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value as it is stored.

    Attributes
    ----------
    revision
        The store-wide counter of changes when it was written; negative if that is damaged.
    uid
        The resource's uid.
    body
        The resource as JSON, without resourceVersion and with its secrets sealed.
    """

    revision: int
    uid: str
    body: bytes

    @classmethod
    def split(cls, raw: bytes) -> StoredValue:
        """Split a stored value; from a damaged one at most the revision is returned."""
        head, found, body = raw.partition(b"\n")
        revision, _, uid = head.partition(b" ")
        if not found or not revision.isdigit():
            return cls(int(_REVISION.match(raw)[0] or b"-1"), "", b"")  # type: ignore[index]
        return cls(int(revision), uid.decode("ascii", "replace"), body)


class Codec:
    """A converter of resources to stored JSON and back.

    Parameters
    ----------
    sealer
        Encrypts the write-only fields.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def encode(
        self, resource: Resource, sealed: Mapping[str, str] | None = None, *, over: bytes = b"", removed: bool = False
    ) -> bytes:
        """Return the JSON to store.

        Parameters
        ----------
        resource
            The resource, with its secrets in plain text.
        sealed
            The secrets as already stored, if ``spec`` doesn't change: they are kept unchanged,
            so that a process without the key can write a status.
        over
            The stored JSON of a resource that can't be read completely: only its metadata and status are replaced.
        removed
            Whether the JSON is for the event of a deletion.

        Raises
        ------
        Forbidden
            The kind has secrets and this process has no key to seal them.
        """
        data = resource.dump()
        data["metadata"].pop("resourceVersion", None)
        if resource.unread and removed:
            for name in _secret_names(resource):
                data["spec"].pop(name, None)
        elif resource.unread:
            data = _laid_over(over, data, resource)
        elif resource.write_only:
            secrets = {name: data["spec"].pop(name, None) for name in _secret_names(resource)}
            data["sealed"] = dict(sealed) if sealed is not None else self._seal(resource, secrets)
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()

    def _seal(self, resource: Resource, secrets: Mapping[str, Any]) -> dict[str, str]:
        if not self._sealer.has_key:
            raise Forbidden(
                f'{resource.kind} "{resource.key}" holds secrets, which this process may not write: it has no key.'
            )
        return {
            name: self._sealer.seal(value, _place(resource.plural, resource.metadata.uid, name))
            for name, value in secrets.items()
            if value is not None
        }

    def sealed(self, body: bytes) -> dict[str, str]:
        """Return the sealed fields of a stored JSON, still encrypted."""
        sealed = json.loads(body).get("sealed", {})
        return dict(sealed)

    def decode(self, kind: type[R], stored: StoredValue, namespace: str, name: str) -> R:
        """Return the resource of a stored value, with its secrets if this process has the key.

        If it was written by a newer version, sealed with another key, or damaged, the readable parts are returned.

        Parameters
        ----------
        kind, namespace, name
            Its kind and place in the store: a damaged value may not contain them.

        Raises
        ------
        Unreadable
            Too little of it can be read to make a resource.
        """
        body = stored.body
        try:
            resource = kind.model_validate(self._unsealed(kind, body)) if kind.write_only else None
            resource = resource or kind.model_validate_json(body)
        except ValidationError as error:
            # for text that isn't JSON the validation error names no field
            why = "" if _json(body) else "it is damaged"
            resource = self._salvaged(kind, stored, (namespace, name), why, str(invalid(error, kind).message))
        except _OTHER_SHAPE as error:
            resource = self._salvaged(kind, stored, (namespace, name), f"it is damaged: {error}", str(error))
        except SealBroken as error:
            resource = self._salvaged(kind, stored, (namespace, name), str(error), str(error))
        if not _stands_at(resource.metadata.namespace, resource.metadata.name, (namespace, name)):
            # else whoever deletes it would delete the one whose name it has
            why = "it is damaged: it has another's name"
            resource = self._salvaged(kind, stored, (namespace, name), why, why)
        resource.metadata.resource_version = str(max(0, stored.revision))
        return resource

    def _salvaged(self, kind: type[R], stored: StoredValue, place: tuple[str, str], why: str, otherwise: str) -> R:
        data = _json(stored.body)
        data.pop("sealed", None)
        meta = data.get("metadata")
        if (
            not isinstance(meta, dict)
            or not {"name", "uid"} <= meta.keys()
            or not _stands_at(meta.get("namespace"), meta["name"], place)
        ):
            why = why or "it is damaged"
            data["metadata"] = {"name": place[1], "namespace": place[0] or None, "uid": stored.uid}
        found = salvaged(kind, data, why)
        if found is None:
            raise Unreadable(otherwise)
        return found

    def _unsealed(self, kind: type[Resource], body: bytes) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(body)
        sealed = data.pop("sealed", {})
        if self._sealer.has_key:
            for name, token in sealed.items():
                data["spec"][name] = self._sealer.open(token, _place(kind.plural, data["metadata"]["uid"], name))
        return data


def _stands_at(namespace: Any, name: Any, place: tuple[str, str]) -> bool:
    """Return whether a resource's own names are those that it was found under."""
    return (namespace or "", name) == (place[0] or "", place[1])


def _json(body: bytes) -> dict[str, Any]:
    """Return the object in a JSON text; an empty one if it is not a JSON object."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _laid_over(stored: bytes, data: dict[str, Any], resource: Resource) -> dict[str, Any]:
    """Return the stored JSON with the metadata and status of `data`."""
    whole = _json(stored)
    if not isinstance(whole.get("metadata"), dict):
        refuse_unread(resource)
    return {**whole, "metadata": {**whole["metadata"], **data["metadata"]}, "status": data["status"]}


def _place(plural: str, uid: str | None, name: str) -> str:
    """Return the place that a ciphertext is bound to; uids are never reused, so neither are places."""
    return f"{plural}/{uid}/spec.{name}"


def _secret_names(resource: Resource) -> list[str]:
    """Return the write-only fields by their names in JSON."""
    fields = type(resource.spec).model_fields
    return [fields[name].alias or name for name in resource.write_only]
