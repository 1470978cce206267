"""Secrets at rest: fields that only the platform may read lie encrypted in the database.

Fernet (https://github.com/fernet/spec) from ``cryptography``: AES-128-CBC with an HMAC. What is encrypted
names the field it belongs to, so that a ciphertext copied into another resource is not opened there.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from llmos.errors import UsageError

__all__ = ["SealBroken", "Sealer"]


class SealBroken(Exception):
    """A sealed value can't be opened: another key, another field, or damaged."""


class Sealer:
    """Encrypts values and opens them again.

    Parameters
    ----------
    keys
        Fernet keys, separated by commas or white space. The first encrypts, all decrypt: to rotate, put
        the new one in front and take the old one away when every secret was written anew. Empty in a
        process that must not read secrets.

    Raises
    ------
    UsageError
        A key is not 32 bytes in URL-safe base64.
    """

    def __init__(self, keys: str = "") -> None:
        try:
            fernets = [Fernet(key) for key in keys.replace(",", " ").split()]
        except ValueError:
            message = "The encryption key is not a Fernet key: 32 bytes in URL-safe base64, 44 characters."
            raise UsageError(message) from None
        self._fernet = MultiFernet(fernets) if fernets else None

    @property
    def has_key(self) -> bool:
        """Whether secrets can be read and written here."""
        return self._fernet is not None

    def seal(self, value: Any, place: str) -> str:
        """Encrypt a JSON value for one place.

        Parameters
        ----------
        value
            Anything JSON can hold.
        place
            Which field of which resource; the same is asked for when it is opened.
        """
        assert self._fernet is not None
        plain = json.dumps({"place": place, "value": value}, separators=(",", ":")).encode()
        return self._fernet.encrypt(plain).decode("ascii")

    def open(self, token: str, place: str) -> Any:
        """Decrypt what `seal` made for `place`.

        Raises
        ------
        SealBroken
            It was sealed with another key or for another place, or is damaged.
        """
        assert self._fernet is not None
        try:
            plain = json.loads(self._fernet.decrypt(token))
        except InvalidToken:
            message = "sealed with a key that is not here"
            raise SealBroken(message) from None
        if plain["place"] != place:
            message = "sealed for another field"
            raise SealBroken(message)
        return plain["value"]
