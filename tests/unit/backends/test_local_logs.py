"""Logs: rotation under a writer, the end of a file, following."""

from __future__ import annotations

import asyncio

import pytest

from llmos_hub.backends.local.logs import read_logs
from llmos_hub.backends.local.records import KnownTemplate, ReplicaPaths, ReplicaRecord, WorkloadRecord
from llmos_hub.processes.logs import last_lines, rotate
from llmos_hub.workload import ProcessTemplate
from tests.support.backend_contract import workload
from tests.support.waiting import eventually


@pytest.fixture
def place(tmp_path):
    """A replica's files, as the backend lays them out."""
    wanted = workload(ProcessTemplate(("x",)))
    directory = tmp_path / wanted.ref.id
    WorkloadRecord(wanted.ref, {}, ()).write(directory)
    place = ReplicaPaths.of(directory, tmp_path, "replica-0-1")
    place.own.mkdir(parents=True)
    ReplicaRecord("replica-0-1", "replica", 0).write(place, KnownTemplate.of(wanted.roles[0].template))
    return place


def read(place, **options):
    wanted = workload(ProcessTemplate(("x",)))
    return read_logs(place.directory.parent.parent, wanted.ref, **options)


async def collect(place, **options):
    return [line async for line in read(place, **options)]


@pytest.mark.parametrize("ending", ["\n", ""])
@pytest.mark.parametrize("tail", [1, 3, 4999, 5000, 9999, None])
async def test_the_last_lines_in_order(place, tail, ending):
    lines = [f"{n} " + "x" * (n % 90) for n in range(5000)]
    place.log.write_text("\n".join(lines) + ending)
    assert await collect(place, tail=tail) == (lines if tail is None else lines[-tail:])
    assert last_lines(place.log, 20) == lines[-20:]


async def test_the_last_lines_reach_into_the_older_file(place):
    place.log.write_text("one\ntwo\n")
    assert rotate(place.log, max_bytes=5, keep=1)
    assert not rotate(place.log, max_bytes=5, keep=1)
    with place.log.open("a") as file:
        file.write("three\n")
    assert await collect(place) == ["one", "two", "three"]
    assert await collect(place, tail=2) == ["two", "three"]
    assert await collect(place, tail=1) == ["three"]


async def test_empty_and_missing_logs(place):
    assert await collect(place) == []
    place.log.write_text("")
    assert await collect(place) == []
    assert last_lines(place.log, 20) == []


async def test_lines_have_a_limit(place):
    place.log.write_bytes(b"a" * 300_000 + b"\nshort\n" + b"\xff\xfe\n" + b"b" * 40_000)
    long, short, broken, last = await collect(place)
    assert len(long) < 17_000
    assert long.endswith("a …")
    assert short == "short"
    assert broken == "��"
    assert last.endswith("b …")
    assert max(map(len, last_lines(place.log, 20))) < 17_000


async def test_of_a_progress_bar_the_last_state(place):
    place.log.write_bytes(b"10 %\r20 %\r100 %\r\ndone\r\n")
    assert await collect(place) == ["100 %", "done"]


async def test_following_survives_rotations_and_loses_nothing(place):
    """The writer keeps its file open; it writes nothing during a rotation, where a line may be lost."""
    found = []

    async def follow():
        async for line in read(place, tail=None, follow=True):
            found.append(int(line))
            if line == "2999":
                return

    with place.log.open("a") as output:
        following = asyncio.create_task(follow())
        for start in range(0, 3000, 500):
            output.writelines(f"{number}\n" for number in range(start, start + 400))
            output.flush()
            assert rotate(place.log, max_bytes=1000, keep=1), "before most of it was read"
            output.writelines(f"{number}\n" for number in range(start + 400, start + 500))
            output.flush()
            await eventually(lambda last=start + 499: found and found[-1] == last)
        await following
    assert found == list(range(3000))


async def test_following_ends_when_the_replica_is_gone(place):
    place.log.write_text("one\n")
    lines = read(place, follow=True)
    async with asyncio.timeout(30):
        assert await anext(lines) == "one"
        with place.log.open("a") as file:
            file.write("last")
        for path in (place.log, place.record):
            path.unlink()
        place.own.rmdir()
        place.directory.rmdir()
        (place.directory.parent / "workload.json").unlink()
        assert [line async for line in lines] == ["last"]


async def test_following_all_takes_up_new_replicas(place):
    place.log.write_text("one\n")
    lines = read(place, follow=True)
    async with asyncio.timeout(30):
        assert await anext(lines) == "one"
        other = ReplicaPaths.of(place.directory.parent, place.socket.parent, "replica-1-2")
        other.own.mkdir(parents=True)
        other.log.write_text("two\n")
        assert await anext(lines) == "two"
        await lines.aclose()
