"""The keys with which the gateway authenticates itself to engines that listen on a port.

A loopback port is open to every account of the machine. Controllers and gateway share a secret and derive from it a
key for each service: the engine gets its key in its environment, the gateway sends it, and it is never written.
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["engine_key", "engine_secret"]


def engine_secret(master: str) -> str:
    """Return a derived secret for processes that must not know the master secret."""
    return hmac.digest(master.encode(), b"llmos engines", hashlib.sha256).hex()


def engine_key(secret: str, uid: str) -> str:
    """Return the key of the service with that uid; empty if there is no secret (in a cluster)."""
    return hmac.digest(secret.encode(), b"engine\0" + uid.encode(), hashlib.sha256).hex() if secret else ""
