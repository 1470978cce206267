"""A fake platform over real HTTP, and an environment without this machine's own configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos import Client
from tests.support.fake_api import TOKEN, FakePlatform, Serving, serving


@pytest.fixture
def no_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "LLMOS_URL",
        "LLMOS_TOKEN",
        "JUPYTERHUB_API_TOKEN",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "LLMOS_DEBUG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMOS_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def server(platform: FakePlatform, no_platform: None) -> Iterator[Serving]:
    with serving(platform) as server:
        yield server


@pytest.fixture
def environment(server: Serving, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the environment of a server that the Hub spawned."""
    values = {
        "LLMOS_URL": server.url,
        "LLMOS_TOKEN": TOKEN,
        "OPENAI_BASE_URL": server.gateway_url,
        "OPENAI_API_KEY": TOKEN,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client() as client:
        yield client
