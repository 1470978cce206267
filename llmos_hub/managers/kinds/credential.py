"""The rules for Credentials: their keys are shown, their values never."""

from __future__ import annotations

from typing import Final

from llmos.errors import Cause, Invalid
from llmos.resources import Credential
from llmos.resources.base import utcnow
from llmos.resources.credential import CredentialStatus
from llmos_hub.managers.kind_rules import KindRules

__all__ = ["KIND", "RULES", "CredentialRules"]

_ADVICE: Final = "Give it as one line of ASCII; encode a file, such as a key, with base64"


class CredentialRules(KindRules[Credential]):
    """The rules for Credentials; they also maintain ``status.keys`` and ``status.lastChanged`` without a controller."""

    def prepared(self, new: Credential) -> Credential:
        """Return it without leading and trailing white space in its values, which ``HF_TOKEN: |`` or a file leaves.

        Raises
        ------
        Invalid
            A value has characters that a header can't have. The message doesn't quote it.
        """
        data = {key: value.strip() for key, value in new.spec.data.items()}
        causes = [
            Cause(f"spec.data.{key}", f"holds {_unfit(value)}, which can't be sent in a header. {_ADVICE}")
            for key, value in data.items()
            if not (value.isascii() and value.isprintable())
        ]
        if causes:
            raise Invalid("; ".join(str(cause) for cause in causes[:3]), causes=causes)
        if data == new.spec.data:
            return new
        return new.model_copy(update={"spec": new.spec.model_copy(update={"data": data})})

    def status_after(self, old: Credential | None, stored: Credential) -> Credential | None:
        """Return it with its keys and the current time in its status if a value changed."""
        if old is not None and old.spec.data == stored.spec.data:
            return None
        status = CredentialStatus(keys=sorted(stored.spec.data), last_changed=utcnow())
        return stored.model_copy(update={"status": status})

    async def present(self, resource: Credential) -> Credential:
        """Return it with the keys of its data: the status may be outdated if its write failed after a change."""
        if resource.unread:  # without readable data, the status has the last known keys
            return resource
        status = resource.status.model_copy(update={"keys": sorted(resource.spec.data)})
        return resource.model_copy(update={"status": status})


KIND, RULES = Credential, CredentialRules


def _unfit(value: str) -> str:
    """Return a description of the part of a value that can't be sent, without quoting it."""
    if "\n" in value or "\r" in value:
        return "a line end in the middle"
    return "a character that is not ASCII" if not value.isascii() else "a control character"
