"""Memory of a server's processes, with a real process tree."""

import os
import subprocess
import sys

import pytest
from llmos_spawners import processes

MB = 1024**2
# a server whose kernel leads a session of its own and takes memory
SCRIPT = """
import subprocess, sys
kernel = "print('here', flush=True); held = b'x' * (64 * 1024 * 1024); print(len(held), flush=True); input()"
subprocess.run([sys.executable, "-c", kernel], start_new_session=True)
"""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(processes, "_FRESH", 0.0)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdout.readline()
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def test_kernels_count_with_their_server(server):
    pids = processes.processes_of(server)
    assert len(pids) == 2
    assert os.getpid() not in pids
    used = processes.used_by(pids, limit=10**12)
    assert 64 * MB < used < 200 * MB


def test_what_is_shared_counts_once_where_it_matters(server):
    pids = processes.processes_of(server)
    assert 60 * MB < processes.used_by(pids, limit=0) <= processes.used_by(pids, limit=10**12)


def test_a_server_that_is_gone_uses_nothing():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert processes.processes_of(int(gone.stdout)) == []
