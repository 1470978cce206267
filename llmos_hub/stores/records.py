"""How a resource lies in the database: a line ``REVISION UID``, and JSON.

The revision stands before the JSON, not in it, since the script that counts it also writes it and the
server should not have to take the JSON apart. Write-only fields are taken out of ``spec`` and lie
encrypted in a map ``sealed`` beside it.
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
from llmos_hub.stores.salvage import refuse_unread, salvaged
from llmos_hub.stores.sealing import SealBroken, Sealer

__all__ = ["Codec", "Record", "Unreadable"]

R = TypeVar("R", bound=Resource)

_REVISION = re.compile(rb"[0-9]{0,16}")
"""As the script that writes reads it."""
_OTHER_SHAPE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading raises where a value is no JSON, JSON of another shape, or nested too deeply to be read."""


class Unreadable(Exception):
    """A value that this version can't read: written by a newer one, sealed with another key, or damaged."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value as it is stored.

    Attributes
    ----------
    revision
        The store-wide count of changes at which it was written; negative where that is damaged.
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
        """Take a stored value apart; of one that is damaged there is a revision at most."""
        head, found, body = raw.partition(b"\n")
        revision, _, uid = head.partition(b" ")
        if not found or not revision.isdigit():
            return cls(int(_REVISION.match(raw)[0] or b"-1"), "", b"")  # type: ignore[index]
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

    def encode(
        self, resource: Resource, sealed: Mapping[str, str] | None = None, *, over: bytes = b"", removed: bool = False
    ) -> bytes:
        """The JSON to store.

        Parameters
        ----------
        resource
            What to store, with its secrets in the clear.
        sealed
            The secrets as they are stored already, where ``spec`` doesn't change: they are kept untouched,
            so that a process without the key can write a status.
        over
            What is stored of a resource that can't be read whole: all but metadata and status is left as it is.
        removed
            Whether it is to be told of as removed.

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

    def decode(self, kind: type[R], record: Record, namespace: str, name: str) -> R:
        """The resource that a record stands for, with its secrets where this process has the key.

        One that was written by a newer version, sealed with another key, or damaged comes with what could be read of it.

        Parameters
        ----------
        kind, namespace, name
            What it is and where it was found: what is damaged may not say.

        Raises
        ------
        Unreadable
            Not even that can be made a resource of.
        """
        body = record.body
        try:
            resource = kind.model_validate(self._unsealed(kind, body)) if kind.write_only else None
            resource = resource or kind.model_validate_json(body)
        except ValidationError as error:
            # what isn't JSON at all is an error in no place
            why = "" if _json(body) else "it is damaged"
            resource = self._salvaged(kind, record, (namespace, name), why, str(invalid(error, kind).message))
        except _OTHER_SHAPE as error:
            resource = self._salvaged(kind, record, (namespace, name), f"it is damaged: {error}", str(error))
        except SealBroken as error:
            resource = self._salvaged(kind, record, (namespace, name), str(error), str(error))
        resource.metadata.resource_version = str(max(0, record.revision))
        return resource

    def _salvaged(self, kind: type[R], record: Record, place: tuple[str, str], why: str, otherwise: str) -> R:
        data = _json(record.body)
        data.pop("sealed", None)
        if not isinstance(data.get("metadata"), dict) or not {"name", "uid"} <= data["metadata"].keys():
            why = why or "it is damaged"
            data["metadata"] = {"name": place[1], "namespace": place[0] or None, "uid": record.uid}
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


def _json(body: bytes) -> dict[str, Any]:
    """The object that a text in JSON stands for; an empty one where it is none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _laid_over(stored: bytes, data: dict[str, Any], resource: Resource) -> dict[str, Any]:
    """What is stored, with another metadata and status."""
    whole = _json(stored)
    if not isinstance(whole.get("metadata"), dict):
        refuse_unread(resource)
    return {**whole, "metadata": {**whole["metadata"], **data["metadata"]}, "status": data["status"]}


def _place(plural: str, uid: str | None, name: str) -> str:
    """What a ciphertext is bound to; the uid is never used again, so neither is the place."""
    return f"{plural}/{uid}/spec.{name}"


def _secret_names(resource: Resource) -> list[str]:
    """The write-only fields as JSON names them."""
    fields = type(resource.spec).model_fields
    return [fields[name].alias or name for name in resource.write_only]
