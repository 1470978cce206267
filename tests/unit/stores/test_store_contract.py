"""The contract suite on Valkey."""

from __future__ import annotations

from tests.support.store_contract import StoreContract


class TestRedisStore(StoreContract):
    """The contract on a real Valkey."""
