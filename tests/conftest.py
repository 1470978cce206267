"""What all tests share: a real Valkey and a store on it."""

from __future__ import annotations

# Its plugin imports it after the last test, rewritten by pytest: CPython 3.11.7 fails at that now and then
# ("AST constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
import hypothesis  # noqa: F401

pytest_plugins = ["tests.support.valkey", "tests.support.platform"]
