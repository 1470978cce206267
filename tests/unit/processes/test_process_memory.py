"""Memory of the machine and of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmos.proc import MachineMemory, machine_memory
from llmos_hub.processes.memory import MemoryUsage, memory_of, proportional_set_size

MI = 2**20


@pytest.fixture
def root(tmp_path):
    """A machine with 1000 MiB, 600 of them available."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", f"MemTotal: {1000 * 1024} kB\nMemFree: 1 kB\nMemAvailable: {600 * 1024} kB\n")
    return tmp_path, write


def test_without_control_groups(root):
    path, _ = root
    assert machine_memory(path) == MachineMemory(1000 * MI, 600 * MI)


def test_the_limit_of_an_outer_group_counts(root):
    path, write = root
    write("proc/self/cgroup", "0::/user/llmos\n")
    write("sys/fs/cgroup/user/memory.max", f"{400 * MI}\n")
    write("sys/fs/cgroup/user/memory.current", f"{300 * MI}\n")
    write("sys/fs/cgroup/user/memory.stat", f"anon 5\ninactive_file {50 * MI}\n")
    write("sys/fs/cgroup/user/llmos/memory.max", "max\n")
    write("sys/fs/cgroup/user/llmos/memory.current", f"{10 * MI}\n")
    assert machine_memory(path) == MachineMemory(400 * MI, 150 * MI)


def test_version_1_in_a_container_where_only_the_top_is_seen(root):
    path, write = root
    write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{500 * MI}\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{100 * MI}\n")
    write("sys/fs/cgroup/memory/memory.stat", f"total_inactive_file {20 * MI}\n")
    assert machine_memory(path) == MachineMemory(500 * MI, 420 * MI)


def test_a_group_without_a_limit_changes_nothing(root):
    path, write = root
    write("proc/self/cgroup", "4:memory:/\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{100 * MI}\n")
    assert machine_memory(path) == MachineMemory(1000 * MI, 600 * MI)


def test_this_machine():
    memory = machine_memory()
    assert 0 < memory.available <= memory.total


def test_children_are_counted_also_those_that_left_the_session():
    program = """
import subprocess, sys
grow = "b = bytearray(b'x') * (40 << 20); print('up', flush=True); input()"
children = [subprocess.Popen([sys.executable, "-ISc", grow], start_new_session=new, stdin=0) for new in (False, True)]
for child in children: child.wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-ISc", program], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
        usage = memory_of([process.pid])[process.pid]
        assert len(usage.pids) == 3
        assert 80 * MI < usage.held <= usage.resident < 200 * MI
        assert 80 * MI < proportional_set_size(usage) < usage.resident
    finally:
        process.communicate(b"\n\n", timeout=5)


def test_those_that_are_gone_are_left_out():
    assert memory_of([]) == {}
    assert memory_of([2**22 + 1]) == {}
    assert proportional_set_size(MemoryUsage(7, 7, (2**22 + 1,))) == 7
    assert os.getpid() in memory_of([os.getpid()])[os.getpid()].pids
