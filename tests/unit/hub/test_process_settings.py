"""Settings of processes, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from llmos.errors import UsageError
from llmos_hub.settings import ProcessSettings

NAMES = ("LLMOS_REDIS_URL", "LLMOS_RELEASE", "LLMOS_STORE", "LLMOS_BACKEND", "LLMOS_POD_NAMESPACE", "LLMOS_PORT")


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ProcessSettings:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"LLMOS_{name}", value)
    return ProcessSettings.from_environment()


def test_a_workstation_says_only_where_its_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, REDIS_URL="unix:///valkey.sock")
    assert (settings.store, settings.backend, settings.namespace, settings.in_cluster) == ("redis", "local", "", False)


def test_in_a_cluster_the_backend_goes_with_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, STORE="kubernetes", POD_NAMESPACE="llmos")
    assert (settings.backend, settings.redis_url, settings.in_cluster) == ("kubernetes", "", True)
    assert settings.release == "llmos"
    assert read(monkeypatch, STORE="kubernetes", POD_NAMESPACE="team", RELEASE="team-llmos").release == "team-llmos"
    settings = read(monkeypatch, STORE="kubernetes", POD_NAMESPACE="llmos", BACKEND="local")
    assert not settings.in_cluster


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "LLMOS_REDIS_URL is not set"),
        ({"STORE": "etcd"}, 'LLMOS_STORE: "etcd" is unknown. Use one of: redis, kubernetes.'),
        ({"STORE": "redis", "BACKEND": "docker"}, 'LLMOS_BACKEND: "docker" is unknown. Use one of: local, kubernetes.'),
        ({"BACKEND": "kubernetes", "REDIS_URL": "redis://x"}, "LLMOS_BACKEND=kubernetes needs LLMOS_STORE=kubernetes"),
        ({"STORE": "kubernetes"}, "LLMOS_POD_NAMESPACE is not set"),
        ({"STORE": "kubernetes", "POD_NAMESPACE": "No!"}, 'LLMOS_POD_NAMESPACE: "No!" is not the name of a namespace.'),
        ({"REDIS_URL": "redis://x", "PORT": "http"}, 'LLMOS_PORT: "http" is not a port.'),
    ],
)
def test_what_makes_no_sense_is_said(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(monkeypatch, **variables)
    assert said in caught.value.message
