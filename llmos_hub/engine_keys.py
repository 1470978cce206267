"""The keys with which the gateway proves itself to engines that listen on a port.

A loopback port is open to every account of the machine. Controllers and gateway share a secret and make of it a key
for each service: the engine finds its own in its environment, the gateway sends it, and it is written nowhere.
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["engine_key", "engine_secret"]


def engine_secret(master: str) -> str:
    """A secret that may be told to those who must not know the one that it is made of."""
    return hmac.digest(master.encode(), b"llmos engines", hashlib.sha256).hex()


def engine_key(secret: str, uid: str) -> str:
    """The key of the service with that uid; empty where there is no secret (in a cluster)."""
    return hmac.digest(secret.encode(), b"engine\0" + uid.encode(), hashlib.sha256).hex() if secret else ""
