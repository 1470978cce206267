"""What holds for Credentials: their keys are told, their values never."""

from __future__ import annotations

from typing import Final

from llmos.errors import Cause, Invalid
from llmos.resources import Credential
from llmos.resources.base import utcnow
from llmos.resources.credential import CredentialStatus
from llmos_hub.managers.rules import KindRules

__all__ = ["CredentialRules"]


_ADVICE: Final = "Give it as one line of ASCII; encode a file, such as a key, with base64"


class CredentialRules(KindRules[Credential]):
    """Keeps ``status.keys`` and ``status.lastChanged``; no controller is needed for that."""

    def prepared(self, new: Credential) -> Credential:
        """Its values without the blanks and line ends around them, which come with ``HF_TOKEN: |`` or a file.

        Raises
        ------
        Invalid
            A value holds what no header can; whoever sent it would have it quoted in an error. The message doesn't.
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
        """The keys and now, where a value changed."""
        if old is not None and old.spec.data == stored.spec.data:
            return None
        status = CredentialStatus(keys=sorted(stored.spec.data), last_changed=utcnow())
        return stored.model_copy(update={"status": status})

    async def present(self, resource: Credential) -> Credential:
        """The keys as they are in the data, even when the status was not written any more after a change."""
        if resource.unread:  # then there is no data, and the status is what was last known
            return resource
        status = resource.status.model_copy(update={"keys": sorted(resource.spec.data)})
        return resource.model_copy(update={"status": status})


def _unfit(value: str) -> str:
    """What of a value can't be sent, in words that don't show it."""
    if "\n" in value or "\r" in value:
        return "a line end in the middle"
    return "a character that is not ASCII" if not value.isascii() else "a control character"
