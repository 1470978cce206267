"""A server's port that another program has taken: it is noticed, and another port is used."""

import asyncio
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from llmos_spawners import processes
from llmos_spawners.local import LLMOSLocalSpawner
from llmos_spawners.processes import listens
from llmos_spawners.start_phases import Phase
from tornado import web

SERVER = """
import os, socket, sys, time
from urllib.parse import urlsplit
address = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
print("begins on", address.port, flush=True)
try:
    server = socket.create_server((address.hostname, address.port))
except OSError as error:
    if sys.argv[1] == "dies":
        sys.exit(f"Error: {error}")
time.sleep(600)
"""


@pytest.fixture
def taken():
    """Yield a port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
async def make(tmp_path, monkeypatch):
    """Return a factory of spawners whose servers are small scripts, on ports that the test chooses."""
    made, ports = [], []

    def free():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return listener.getsockname()[1]

    monkeypatch.setattr("jupyterhub.spawner.random_port", lambda: ports.pop(0) if ports else free())

    def make(behaviour, *first_ports, **settings):
        ports[:] = first_ports
        user = SimpleNamespace(name="ada", id=1, url="/user/ada/", base_url="/user/ada/", escaped_name="ada")
        user.orm_user, user.new_api_token = SimpleNamespace(api_tokens=[]), lambda **_: "invoke"
        hub = SimpleNamespace(
            public_host="", base_url="/hub/", api_url="http://127.0.0.1:1/hub/api", url="http://127.0.0.1:1"
        )
        spawner = LLMOSLocalSpawner(
            hub=hub,
            user=user,
            db=SimpleNamespace(commit=lambda: None),
            orm_spawner=SimpleNamespace(name="", server=None, user_options=None, state=None),
            api_token="hub",
            oauth_client_id="client",
            homes=str(tmp_path / "homes"),
            logs=str(tmp_path / "logs"),
            cmd=[sys.executable, "-c", SERVER, behaviour],
            **settings,
        )
        made.append(spawner)
        return spawner

    yield make
    for spawner in made:
        await spawner.stop(now=True)


@pytest.mark.parametrize("behaviour", ["dies", "waits"])
async def test_a_taken_port_is_left_and_another_one_used(make, taken, behaviour):
    spawner = make(behaviour, taken)
    host, port = await spawner.start()
    assert port == spawner.port != taken
    assert listens(spawner.pid, port)
    assert not listens(spawner.pid, taken)
    assert [line.split()[-1] for line in spawner.log_path.read_text().splitlines() if "begins" in line] == [
        str(taken),
        str(port),
    ]
    assert await spawner.poll() is None
    reader, writer = await asyncio.open_connection(host, port)
    del reader
    writer.close()


async def test_it_ends_after_some_tries_and_says_why(make, taken):
    spawner = make("dies", *[taken] * 10)
    with pytest.raises(web.HTTPError) as refused:
        await spawner.start()
    assert f"another program listens on its port {taken}" in refused.value.jupyterhub_message
    assert spawner.log_path.read_text().count("begins") == 3
    assert await spawner.poll() is not None  # nothing is left running


async def test_a_port_that_the_site_has_set_is_no_other_one(make, taken):
    spawner = make("dies", port=taken)
    with pytest.raises(web.HTTPError):
        await spawner.start()
    assert spawner.log_path.read_text().count("begins") == 1


async def test_a_server_that_dies_of_something_else_is_not_started_again(make):
    spawner = make("dies")
    spawner.cmd = [sys.executable, "-c", "import sys; sys.exit('no home')"]
    with pytest.raises(web.HTTPError) as refused:
        await spawner.start()
    assert "no home" in refused.value.jupyterhub_message


async def test_a_server_that_takes_too_long_says_where_it_stood(make):
    spawner = make("dies", start_timeout=3)
    spawner.cmd = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(web.HTTPError) as refused:
        await spawner.start()
    assert refused.value.jupyterhub_message == "The server didn't start: after 3 s it was here: Python is starting."


async def test_the_progress_of_a_failed_start_does_not_begin_again(make):
    spawner = make("dies")
    phases = iter([Phase(30, "Python is starting"), Phase(10, "Getting your home"), Phase(55, "Jupyter is starting")])
    spawner._phase = lambda: next(phases)
    told = spawner.progress()
    assert [(await anext(told))["message"] for _ in range(2)] == ["Python is starting", "Jupyter is starting"]


def test_a_listener_belongs_to_who_started_it(taken, monkeypatch):
    monkeypatch.setattr(processes, "_FRESH", 0.0)
    assert listens(os.getpid(), taken)
    code = """import socket, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
input()
'''])
child.wait()"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        port = int(parent.stdout.readline())
        assert listens(parent.pid, port)
        assert not listens(parent.pid, taken)
        parent.communicate("\n", timeout=30)
