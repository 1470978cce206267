"""Detection of the machine's resources, in containers and outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmos_hub.engines.machine import detect

GIB = 2**30
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_has_cpus_and_memory():
    machine = detect()
    assert 1 <= machine.cpus <= CPUS
    assert machine.memory > 2**28


def test_without_limits_it_is_what_the_hardware_has(root: Path):
    write(root / "proc/self/cgroup", "0::/user.slice\n")
    write(root / "sys/fs/cgroup/user.slice/memory.max", "max\n")
    write(root / "sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
    machine = detect(root)
    assert (machine.cpus, machine.memory, machine.gpus) == (CPUS, 16 * GIB, ())


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("6400000 100000", CPUS)])
def test_a_quota_caps_the_cpus(root: Path, quota: str, expected: int):
    write(root / "proc/self/cgroup", "0::/\n")
    write(root / "sys/fs/cgroup/cpu.max", quota + "\n")
    assert detect(root).cpus == expected


def test_the_smallest_limit_up_the_tree_counts(root: Path):
    write(root / "proc/self/cgroup", "0::/a/b\n")
    write(root / "sys/fs/cgroup/a/memory.max", str(2 * GIB))
    write(root / "sys/fs/cgroup/a/b/memory.max", str(4 * GIB))
    assert detect(root).memory == 2 * GIB


def test_a_container_sees_its_own_group_as_the_root(root: Path):
    write(root / "proc/self/cgroup", "0::/kubepods/pod1/container2\n")
    write(root / "sys/fs/cgroup/memory.max", str(3 * GIB))
    assert detect(root).memory == 3 * GIB


def test_the_older_groups_count_as_well(root: Path):
    write(root / "proc/self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n3:pids:/\n")
    write(root / "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", str(5 * GIB))
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(root / "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "100000")
    write(root / "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000")
    machine = detect(root)
    assert (machine.cpus, machine.memory) == (1, 5 * GIB)


def test_gpus_are_read_from_the_driver(root: Path):
    for slot in ("0000:01:00.0", "0000:02:00.0"):
        write(root / f"proc/driver/nvidia/gpus/{slot}/information", "Model: \t\t NVIDIA L4\nIRQ: 5\n")
    assert detect(root).gpus == ("NVIDIA L4", "NVIDIA L4")
