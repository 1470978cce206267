"""The gateway follows its load, and nobody loses an answer when a replica goes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.release import IMAGES, Release, installed
from tests.support.traffic import Traffic

ALONE = "measures under load"
pytestmark = pytest.mark.timeout(600)
NEEDS = ("csi", "netpol", "metrics", *IMAGES)

SHUTDOWN_DELAY = 5
GATEWAY = {
    "autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "targetCpu": 60, "scaleDownAfter": 15},
    "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}},
    "shutdownDelaySeconds": SHUTDOWN_DELAY,
    "drainSeconds": 30,
}
LONG = 24
"""Pieces of a long answer, two a second."""

SLOW_ENGINE = """
import http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"object": "list", "data": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(asked["max_tokens"]):
            self.event(json.dumps({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": str(number)}}]}))
            time.sleep(0.5)
        self.event("[DONE]")
        self.wfile.write(b"0" + CRLF + CRLF)

    def event(self, data):
        data = ("data: " + data + chr(10) * 2).encode()
        self.wfile.write(hex(len(data))[2:].encode() + CRLF + data + CRLF)

CRLF = bytes((13, 10))
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass
class Watched:
    """A release whose gateway scales, a person with two models, and the autoscaler as it was seen."""

    release: Release
    token: str
    began: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, int, int, str]] = field(default_factory=list)

    def look(self) -> tuple[int, int]:
        """Return the number of replicas that the autoscaler wants, and of those that exist, also while they end their answers."""
        cluster, where = self.release.cluster, ("-n", self.release.namespace)
        status = cluster.get("hpa", "llmos-gateway", *where).get("status", {})
        pods = self.release.pods(component="gateway")
        ready = sum(is_ready(pod) for pod in pods)
        metrics = status.get("currentMetrics") or [{}]
        load = metrics[0].get("resource", {}).get("current", {}).get("averageUtilization", "?")
        now = (status.get("desiredReplicas", 0), len(pods), f"{ready} ready, {load} % of the processor asked for")
        if not self.seen or self.seen[-1][1:] != now:
            self.seen.append((time.monotonic() - self.began, *now))
        return now[0], ready if ready == len(pods) else -1

    async def until(self, condition: Callable[[int, int], bool], timeout: float) -> tuple[int, int]:
        """Look until a condition holds of the wanted and the steady replicas."""
        over = time.monotonic() + timeout
        while not condition(*(found := await asyncio.to_thread(self.look))):
            assert time.monotonic() < over, f"not within {timeout:.0f} s: {self.history()}"
            await asyncio.sleep(1.0)
        return found

    def history(self) -> str:
        """For the record."""
        return "\n".join(f"{at:6.1f} s  wants {wants}, has {has} ({more})" for at, wants, has, more in self.seen)


def is_ready(pod: dict[str, Any]) -> bool:
    """Return whether it takes requests and stays."""
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@pytest.fixture(scope="module")
def watched(cluster) -> Iterator[Watched]:
    cluster.addons("netpol", "metrics")
    with installed(cluster, "scales", gateway=GATEWAY) as release:
        name = f"ada-{release.namespace.rsplit('-', 1)[-1]}"
        release.add_user(name)
        token = release.token(name)
        with release.client(token) as client:
            client.serve("demo://tiny", name="tiny", timeout=240)
            command = ["/opt/llmos/bin/python", "-c", SLOW_ENGINE, "{port}"]
            client.serve(None, name="slow", engine="custom", args=command, timeout=240)
        yield Watched(release, token)
        assert release.hub("DELETE", f"/users/{name}").status_code == 204


async def test_replicas_come_with_the_load_and_go_without_losing_a_request(watched):
    rising, falling = (Traffic(watched.release.gateway_url, watched.token) for _ in range(2))
    await watched.until(lambda wants, steady: wants == steady == 1, 60)
    chats = functools.partial(rising.chat, "tiny"), functools.partial(rising.stream, "streamed chats", "tiny", 8)
    async with rising.running(*chats, *[rising.load] * 16):
        grown, _ = await watched.until(lambda wants, steady: steady == wants > 1, 150)
    fell = time.monotonic()
    calm = (
        functools.partial(falling.chat, "tiny"),
        functools.partial(falling.stream, "streamed chats", "tiny", 8),
        *[functools.partial(falling.stream, "long streamed chats", "slow", LONG)] * 4,
        *[falling.keeping("tiny", longest) for longest in [1, 2, 3, 4, 6, 8] * 3],
        *[falling.arrive] * 4,
    )
    async with falling.running(*calm):
        await watched.until(lambda wants, steady: wants == steady == 1, 240)
    print(f"\n{watched.history()}\non the way up: {rising.tally}\n{dict(rising.tally.reasons)}")
    print(f"on the way down from {grown}, {time.monotonic() - fell:.0f} s: {falling.tally}")
    assert rising.tally.failures == []
    assert falling.tally.failures == []
    assert not falling.tally.refused, falling.tally.reasons
    assert falling.tally.sent_elsewhere, "no kept connection led to a replica that went"
    assert falling.tally.asked["long streamed chats"] > grown


async def test_a_long_answer_ends_well_on_a_replica_that_is_told_to_stop(watched):
    traffic = Traffic(watched.release.gateway_url, watched.token)
    await watched.until(lambda wants, steady: wants == steady == 1, 120)
    [pod] = watched.release.pods(component="gateway")
    name = pod["metadata"]["name"]
    answer = asyncio.create_task(traffic.stream("long streamed chats", "slow", LONG))
    await asyncio.sleep(1.5)  # it is under way
    told = time.monotonic()
    await asyncio.to_thread(
        watched.release.cluster.kubectl, "delete", "pod", name, "-n", watched.release.namespace, "--wait=false"
    )
    await answer
    took = time.monotonic() - told
    print(f"\nended {took:.1f} s after the replica was told to stop")
    assert traffic.tally.failures == []
    assert took > SHUTDOWN_DELAY + 2
    async with asyncio.timeout(30):  # and then it goes, rather than when it is killed
        while name in [found["metadata"]["name"] for found in watched.release.pods(component="gateway")]:
            await asyncio.sleep(0.5)
