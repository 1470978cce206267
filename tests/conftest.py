"""What all tests share: a real Valkey and a store on it."""

from __future__ import annotations

pytest_plugins = ["tests.support.valkey", "tests.support.platform"]
