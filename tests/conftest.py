"""Fixtures of all tests: a real Valkey and a store on it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import httpx

# Its plugin imports it after the last test, rewritten by pytest: CPython 3.11.7 fails at that now and then
# ("AST constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
import hypothesis
import pytest
from httpx._transports import default as httpx_transports

pytest_plugins = ["tests.support.valkey", "tests.support.platform"]

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")


_authorities = functools.cache(httpx.create_ssl_context)


def _tls_context(verify: Any = True, **other: Any) -> Any:
    return _authorities() if verify is True else httpx.create_ssl_context(verify, **other)


# httpx reads the certificates of all authorities for every client, 50 ms of computing even without TLS
httpx_transports.create_ssl_context = _tls_context


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the integration tests: they take longest, and what runs beside them waits for them in the end."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """Undo what a program does that a test runs in this process: the next test, or a cluster's node, would inherit it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
