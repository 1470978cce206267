"""A lost machine is told from a slow engine."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmos_hub.gateway import connection as connection_module
from llmos_hub.gateway.connection import ConnectFailed
from llmos_hub.gateway.liveness import is_lost, probe, unacknowledged
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.upstream import Upstreams
from tests.support.fake_upstream import Call, MakeUpstream
from tests.support.gateway import running_gateway, service
from tests.support.waiting import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' tcp_info")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname(), timeout=5)
        far, _ = server.accept()
    with near, far:
        yield near, far


@linux
def test_what_a_machine_has_acknowledged_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.sendall(b"x" * 1000)  # nobody reads it, but the kernel has it
    wait_until(lambda: unacknowledged(near) == 0.0)
    assert unacknowledged(near) == 0.0


@linux
def test_an_engine_that_leaves_a_large_body_unread_is_not_lost(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += near.send(b"x" * 65536)
    assert sent > 65536
    wait_until(lambda: unacknowledged(near) == 0.0, what="acknowledgement of all that was taken")


_LOST_NETWORK = """
import json, socket, subprocess, time
from llmos_hub.gateway.liveness import probe, unacknowledged
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 0))
ends = []
for _ in range(2):
    near = socket.create_connection(server.getsockname(), timeout=5)
    ends += [near, server.accept()[0]]
busy, _, idle, _ = ends
probe(idle, 2)
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
busy.sendall(b"x")
while not (waited := unacknowledged(busy)):
    time.sleep(0.01)
idle.settimeout(40)
try:
    idle.recv(1)
except OSError as error:
    print(json.dumps([waited, error.errno]))
"""


@linux
@pytest.mark.skipif(
    not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare (util-linux) and ip (iproute2)"
)
def test_a_network_that_is_gone_is_noticed_with_and_without_something_under_way() -> None:
    words = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*words, "true"], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("needs namespaces for users and networks: run as root or allow unprivileged user namespaces")
    done = subprocess.run(
        [*words, sys.executable, "-c", _LOST_NETWORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    waited, number = json.loads(done.stdout)
    assert waited > 0
    assert number in (errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH), "the kernel ended it, not the time-out"


def test_unix_sockets_are_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        probe(near, 5)
        near.send(b"x")
        assert unacknowledged(near) == 0.0


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (OSError(errno.ETIMEDOUT, ""), True),
        (OSError(errno.EHOSTUNREACH, ""), True),
        (ConnectionResetError(errno.ECONNRESET, ""), False),
        (None, False),
    ],
)
def test_a_reset_comes_from_somebody_who_is_there(error: OSError | None, *, lost: bool) -> None:
    assert is_lost(error) is lost


async def test_a_request_on_a_lost_machine_goes_to_another_replica(
    store: Any, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, alive = await upstreams("lost", tcp=True), await upstreams("alive", tcp=True)

    async def silence(call: Call) -> None:
        await call.gone.wait()

    port = int(lost.url.rsplit(":", 1)[1])
    monkeypatch.setattr(
        connection_module, "unacknowledged", lambda sock: 60.0 if sock.getpeername()[1] == port else 0.0
    )
    async with running_gateway(store, GatewayOptions(lost_after=0.3)) as gateway:
        await gateway.add(service("chat", lost, alive))
        lost.behave = silence
        for _ in range(6):
            answer = await gateway.chat()
            assert answer.json()["choices"][0]["message"]["content"] == "alive heard chat"
        assert len(lost.calls) == 1, "nothing more is sent to a machine that is lost"


async def test_a_single_replica_on_a_lost_machine_is_named_as_the_reason(
    store: Any, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await upstreams("lost", tcp=True)

    async def silence(call: Call) -> None:
        await call.gone.wait()

    lost.behave = silence
    monkeypatch.setattr(connection_module, "unacknowledged", lambda _: 60.0)
    async with running_gateway(store, GatewayOptions(lost_after=0.3)) as gateway:
        await gateway.add(service("chat", lost))
        answer = await gateway.chat()
        assert answer.status_code == 502
        assert "its machine no longer answers" in answer.json()["error"]["message"]


async def test_an_unreachable_replica_is_tried_more_and_more_rarely_and_trusted_again_once_it_answers(
    upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await upstreams("a", tcp=True)
    known = Upstreams(GatewayOptions(aside=2.0))
    now = known.loop.time()
    monkeypatch.setattr(known.loop, "time", lambda: now)  # it stands still
    try:
        replica = known.replica("r0", engine.url)
        await engine.stop()
        pauses = []
        for _ in range(5):
            with pytest.raises(ConnectFailed):
                await replica.connect()
            pauses.append(replica.aside_until - now)
        assert pauses == pytest.approx([2, 4, 8, 16, 16])
        again = await upstreams("b", tcp=True)
        monkeypatch.setattr(replica, "_port", int(again.url.rsplit(":", 1)[1]))
        (await replica.connect()).abort()
        assert replica.aside_until == 0.0
        await again.stop()
        with pytest.raises(ConnectFailed):
            await replica.connect()
        assert replica.aside_until - now == pytest.approx(2)
    finally:
        known.close()
