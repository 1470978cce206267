"""The contract suite on every store there is."""

from __future__ import annotations

from tests.support.store_contract import StoreContract


class TestRedisStore(StoreContract):
    """On a real Valkey."""
