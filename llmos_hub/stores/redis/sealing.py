"""Secrets at rest: encryption of the fields that only the platform may read.

Fernet (https://github.com/fernet/spec) from ``cryptography``: AES-128-CBC with an HMAC. The plain text
names the field it belongs to, so that a ciphertext copied into another resource can't be decrypted there.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from llmos.errors import UsageError

__all__ = ["SealBroken", "Sealer"]


class SealBroken(Exception):
    """An error for a sealed value that can't be decrypted: another key, another field, or damaged."""


class Sealer:
    """An encrypter and decrypter of values.

    Parameters
    ----------
    keys
        Fernet keys, separated by commas or white space. The first encrypts, all decrypt: to rotate them, put
        the new one in front and remove the old one when every secret was written again. Empty in a
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
            raise UsageError(
                "The encryption key is not a Fernet key: 32 bytes in URL-safe base64, 44 characters."
            ) from None
        self._fernet = MultiFernet(fernets) if fernets else None

    @property
    def has_key(self) -> bool:
        """True if this process can read and write secrets."""
        return self._fernet is not None

    def seal(self, value: Any, place: str) -> str:
        """Encrypt a JSON value for one place.

        Parameters
        ----------
        value
            Any JSON value.
        place
            The field and resource it belongs to; `open` needs the same place.
        """
        assert self._fernet is not None
        plain = json.dumps({"place": place, "value": value}, separators=(",", ":")).encode()
        return self._fernet.encrypt(plain).decode("ascii")

    def open(self, token: str, place: str) -> Any:
        """Decrypt a token that `seal` made for `place`.

        Raises
        ------
        SealBroken
            It was sealed with another key or for another place, or is damaged.
        """
        assert self._fernet is not None
        try:
            plain = json.loads(self._fernet.decrypt(token))
        except InvalidToken:
            raise SealBroken("sealed with a key that is not here") from None
        if plain["place"] != place:
            raise SealBroken("sealed for another field")
        return plain["value"]
