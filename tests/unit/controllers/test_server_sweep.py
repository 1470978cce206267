"""Notebook servers that the Hub no longer lists end after a warning; listed ones never do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmos_hub.controllers.server_sweep import ServerSweep
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.fake_people import FakePeople

NAMESPACE = "user-ada"


@dataclass
class Bench:
    cluster: FakeKubernetes
    people: FakePeople
    sweep: ServerSweep = field(init=False)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def look(self, after: float = 0) -> list[str]:
        """Check again after some minutes, and return the remaining pods."""
        self.now += timedelta(minutes=after)
        await self.sweep.look(NAMESPACE, "ada", lambda: None)
        return self.cluster.names("pods", NAMESPACE)

    def pod(self, name: str, server: str = "", kind: str = "Server", instance: str = "llmos") -> None:
        labels = {"llmos.ai/kind": kind, "app.kubernetes.io/instance": instance}
        annotations = {"hub.jupyter.org/servername": server}
        meta = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations}
        self.cluster.put("pods", {"metadata": meta})

    def started(self, **servers: timedelta) -> None:
        self.people.running = {"ada": {name: (self.now + when).isoformat() for name, when in servers.items()}}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        made = Bench(cluster, FakePeople({"ada": ""}))
        made.sweep = ServerSweep(api, made.people, "llmos", clock=lambda: made.now)
        yield made


async def test_a_server_that_is_not_listed_is_warned_of_and_then_stopped(bench: Bench) -> None:
    bench.pod("jupyter-ada")
    assert await bench.look() == ["jupyter-ada"]
    (event,) = [obj for key, obj in bench.cluster.objects.items() if key[0] == "events"]
    assert (event["reason"], event["involvedObject"]["name"]) == ("NotListed", "jupyter-ada")
    assert "stopped in 10 minutes" in event["message"]
    assert await bench.look(after=9) == ["jupyter-ada"]
    assert await bench.look(after=2) == []


async def test_what_the_hub_lists_runs_on(bench: Bench) -> None:
    bench.pod("jupyter-ada-lab", server="lab")
    bench.pod("engine", kind="ModelService")
    bench.pod("other", instance="another")
    bench.started(lab=timedelta(seconds=-30))
    await bench.look()
    assert await bench.look(after=30) == ["engine", "jupyter-ada-lab", "other"]


async def test_a_server_that_another_spawner_has_started_since_is_another(bench: Bench) -> None:
    bench.pod("jupyter-ada-lab", server="lab")
    bench.started(lab=timedelta(minutes=15))
    await bench.look()
    assert await bench.look(after=11) == []


async def test_who_is_listed_again_is_not_stopped(bench: Bench) -> None:
    bench.pod("jupyter-ada-lab", server="lab")
    await bench.look()
    bench.started(lab=timedelta(0))
    await bench.look(after=11)
    bench.people.running = {}
    assert await bench.look(after=1) == ["jupyter-ada-lab"], "the ten minutes begin again"


async def test_a_hub_that_does_not_tell_stops_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.pod("jupyter-ada")

    async def silent(name: str) -> None:
        del name

    monkeypatch.setattr(bench.people, "servers", silent)
    await bench.look()
    assert await bench.look(after=60) == ["jupyter-ada"]
