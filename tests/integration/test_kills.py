"""Failures, and their duration, while a client calls a model and every process in turn is killed with SIGKILL.

The client uses the gateway's own port and counts failures, without retries. `COSTS` has the limits for each process; the
table that `test_the_costs` prints is the one in docs/verified.md.
"""

import itertools
import signal
import threading
import time

import httpx
import pytest

import llmos
from tests.support.platform import Platform, command_of, running_platform, wait_until

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}

COSTS = {
    # by process: maximum duration of failures in seconds
    "hub": 0.0,
    "api": 0.0,
    "controllers": 0.0,
    "proxy": 0.0,
    "valkey": 0.0,
    "supervisor": 0.0,
    "replica": 2.0,
    "gateway": 8.0,
}


class Asking:
    """A client in a loop, which records when it got no answer."""

    def __init__(self, url: str, token: str):
        self.asked = 0
        self.failures: list[tuple[float, str]] = []
        self._url, self._token = url, token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)

    def _run(self):
        with httpx.Client(headers={"Authorization": f"Bearer {self._token}"}, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"{self._url}/v1/chat/completions", json=BODY)
                    if answer.status_code != 200:
                        self.failures.append((time.monotonic(), f"{answer.status_code} {answer.text[:200]}"))
                except httpx.HTTPError as error:
                    self.failures.append((time.monotonic(), repr(error)))
                self.asked += 1
                self._stop.wait(0.02)

    def wait_answers(self, count: int) -> None:
        """Wait for some more answers."""
        target = self.asked + count
        wait_until(lambda: self.asked >= target, 60, "the client goes on")

    @property
    def outage(self) -> float:
        """Return the seconds from the first to the last failure."""
        return self.failures[-1][0] - self.failures[0][0] if self.failures else 0.0


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Yield a platform of its own, whose processes are killed."""
    with running_platform(tmp_path_factory.mktemp("kills") / "data") as platform:
        platform.add_user("ada")
        token = platform.token("ada")
        with llmos.Client(
            url=platform.api_url, token=token, gateway_url=f"{platform.gateway_url}/v1", gateway_token=token
        ) as client:
            client.serve("demo://tiny", name="tiny", replicas=2, timeout=60)
            yield platform, client, token


def kill_replica(platform: Platform) -> None:
    """Kill one engine process with SIGKILL."""
    for handle in platform.marked():
        if "llamacpp_server" in command_of(handle):
            handle.send(signal.SIGKILL)
            return
    pytest.fail("no engine runs")


serial = itertools.count()


def write_and_read_back(client: llmos.Client) -> str:
    """Create a resource whose write is acknowledged; return its name."""
    name = f"note-{next(serial)}"
    client.credentials.apply({"kind": "Credential", "metadata": {"name": name}, "spec": {"data": {"KEY": name}}})
    return name


@pytest.mark.parametrize("victim", COSTS)
def test_the_costs(running, victim, record_property):
    platform, client, token = running
    names = [write_and_read_back(client) for _ in range(5)]
    wait_until(lambda: client.modelservices.get("tiny").status.ready_replicas == 2, 60, "both replicas are ready")
    before = {r.id for r in client.modelservices.get("tiny").status.replica_statuses}
    with Asking(platform.gateway_url, token) as asking:
        asking.wait_answers(20)
        if victim == "replica":
            kill_replica(platform)
        elif victim == "supervisor":
            platform.kill("supervisor")
            asking.wait_answers(50)
            took = platform.start()
            assert "adopt" in platform.output.lower() or "still" in platform.output.lower(), platform.output
            assert took < 30
        else:
            old = platform.kill(victim)
            platform.wait_replaced(victim, old)
        asking.wait_answers(50)
        asked = asking.asked
    print(
        f"\n{victim:12} {len(asking.failures):4} of {asked:5} failed, over {asking.outage:.2f} s {asking.failures[:1]}"
    )
    record_property("failed", len(asking.failures))
    assert asking.outage <= COSTS[victim], asking.failures[:3]
    if COSTS[victim] == 0.0:
        assert asking.failures == []

    def all_there():
        try:
            return {c.metadata.name for c in client.credentials.list()} >= set(names)
        except llmos.LLMOSError:
            return False

    wait_until(all_there, 30, "what was acknowledged is there")
    if victim != "replica":
        after = {r.id for r in client.modelservices.get("tiny").status.replica_statuses}
        assert after == before, "models were not started again"
    assert write_and_read_back(client)
