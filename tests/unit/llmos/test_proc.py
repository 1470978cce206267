"""Processes as the kernel shows them."""

import os
import socket
import subprocess
import sys

import pytest

from llmos import proc
from tests.support.waiting import wait_until

GONE = 2**22 + 1  # more than any pid


@pytest.fixture
def child():
    environment = {**os.environ, "LLMOS_TEST": "a=b"}
    argv = [sys.executable, "-ISc", "input()", "a word", ""]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, env=environment) as process:
        yield process
        process.stdin.close()


def test_a_child(child):
    assert child.pid in proc.pids()
    assert proc.session(child.pid) == child.pid
    assert proc.families()[child.pid] == (os.getpid(), child.pid)
    assert proc.argv(child.pid)[1:4] == ["-ISc", "input()", "a word"]
    assert proc.environment_value(child.pid, "LLMOS_TEST") == "a=b"
    assert proc.environment_value(child.pid, "LLMOS_TES") is None
    assert 0 < proc.start_time(child.pid) <= (proc.uptime() + 1) * os.sysconf("SC_CLK_TCK")
    assert int(proc.stat(child.pid, limit=2)[1]) == os.getpid()
    assert 0 < proc.proportional(child.pid) <= proc.resident(child.pid) + 2**20


def test_a_zombie_has_ended():
    process = subprocess.Popen([sys.executable, "-ISc", ""])
    wait_until(lambda: proc.stat(process.pid)[0] == "Z")
    assert proc.start_time(process.pid) == 0
    process.wait()


def test_one_that_is_gone_is_nothing():
    assert proc.stat(GONE) == []
    assert proc.start_time(GONE) == proc.session(GONE) == proc.resident(GONE) == 0
    assert proc.argv(GONE) == []
    assert proc.environment_value(GONE, "PATH") is None
    assert proc.proportional(GONE) is None
    assert proc.activity(GONE) == (0.0, 0.0, False)
    assert not proc.has_open(GONE, {"/dev/null"})


def test_members_are_session_and_descendants_of_each_leader():
    table = {
        1: (0, 1),
        10: (1, 10),  # a leader
        11: (10, 10),
        12: (11, 12),  # left the session
        13: (1, 10),  # its parent has ended
        20: (11, 20),  # a leader below the other
        21: (20, 20),
        30: (1, 30),
    }
    assert proc.members([10, 20, 99], table) == {10: [10, 11, 12, 13], 20: [20, 21], 99: []}
    assert proc.members([7], {8: (9, 8), 9: (8, 9)}) == {7: []}, "a circle ends"


def test_who_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sockets = proc.listening_sockets(server.getsockname()[1])
        assert len(sockets) == 1
        assert proc.has_open(os.getpid(), sockets)
        assert not proc.has_open(os.getppid(), sockets)


def test_the_machine(tmp_path):
    memory = proc.meminfo()
    assert 0 < memory["MemAvailable"] <= memory["MemTotal"]
    assert proc.meminfo(tmp_path) == {}
    assert len(proc.boot_id()) == 36
    assert proc.oom_kills() >= 0
