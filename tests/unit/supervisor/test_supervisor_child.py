"""Supervised processes, with real ones: started, restarted, adopted, stopped."""

import asyncio
import hashlib
import itertools
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.errors import Unavailable
from llmos_hub.names import DataDir
from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.processes.running import Exit
from llmos_hub.supervisor import child as child_module
from llmos_hub.supervisor.child import Child, State, exit_words
from llmos_hub.supervisor.plan import Program
from llmos_hub.supervisor.state import StateFiles
from tests.support.waiting import eventually

SLEEP = (sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()")


class Well:
    """A probe whose result the test sets."""

    def __init__(self, trouble=None):
        self.trouble = trouble
        self.checks = 0

    async def check(self):
        self.checks += 1
        return self.trouble


class Bench:
    def __init__(self, root: Path) -> None:
        self.files = StateFiles(DataDir(root / "data"))
        self.files.prepare()
        self.said: list[str] = []
        self.back: list[str] = []

    async def restarted(self, name: str) -> None:
        self.back.append(name)

    def child(self, argv=SLEEP, **kwargs) -> Child:
        program = Program("api", tuple(argv), {"MARK": "1"}, kwargs.pop("probe", Well()), cwd=Path("/"), **kwargs)
        return Child(
            program,
            self.files,
            base_environment={"PATH": "/usr/bin:/bin"},
            say=self.said.append,
            changed=lambda: None,
            restarted=self.restarted,
        )

    @asynccontextmanager
    async def running(self, child: Child):
        task = asyncio.create_task(child.run())
        try:
            yield child
        finally:
            await child.stop()
            await asyncio.wait_for(task, 30)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    shutil.rmtree(made.files.data_dir.run)  # outside tmp_path where that is too long for a socket


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(child_module, "_PROBE", 0.05)
    monkeypatch.setattr(child_module, "_BACKOFF_FIRST", 0.02)


async def test_it_runs_with_its_own_environment_log_and_session(bench):
    async with bench.running(bench.child()) as child:
        await asyncio.wait_for(child.ready.wait(), 30)
        await eventually(lambda: "here" in child.log.read_text())
        environ = Path(f"/proc/{child.handle.pid}/environ").read_text()
        assert "MARK=1" in environ
        assert "HOME=" not in environ
        fields = Path(f"/proc/{child.handle.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(fields[3]) == child.handle.pid  # leads its own session
        assert child.log.stat().st_mode & 0o077 == 0
        handle = child.handle
    assert not handle.alive
    assert bench.files.records() == {}
    assert bench.said == []


async def test_a_killed_process_is_started_again_and_said_so(bench):
    async with bench.running(bench.child()) as child:
        await asyncio.wait_for(child.ready.wait(), 30)
        first = child.handle
        first.send(signal.SIGKILL)
        await eventually(lambda: bench.back == ["api"])
        assert child.handle.pid != first.pid
        assert child.restarts == 1
    assert bench.said[0] == "api stopped (killed by signal 9); starting again"
    assert bench.said[1].startswith("api is back after ")


async def test_one_that_never_comes_up_is_given_up_at_the_start(bench):
    script = "import sys; print('no such thing', flush=True); sys.exit(3)"
    async with bench.running(bench.child((sys.executable, "-c", script), probe=Well("refused"))) as child:
        assert await asyncio.wait_for(child.failed, 30) == "exit status 3"
        assert "no such thing" in child.last_lines()
        assert not child.ready.is_set()


async def test_a_program_that_is_missing_is_words_not_a_traceback(bench):
    async with bench.running(bench.child(("/nowhere/at/all",))) as child:
        assert "No such file" in await asyncio.wait_for(child.failed, 30)


async def test_back_off_grows(bench, monkeypatch):
    times, delays = [], []
    child = bench.child((sys.executable, "-c", "raise SystemExit(1)"), probe=Well("refused"))
    died = child._died

    def record(words, delay):
        times.append(time.monotonic())
        delays.append(delay)
        died(words, delay)

    monkeypatch.setattr(child, "_died", record)
    async with bench.running(child):
        await eventually(lambda: len(times) >= 5)
    assert delays[:5] == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32])
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= delay for gap, delay in zip(gaps, delays, strict=False)), "it starts only after its delay"


async def test_a_pause_ends_when_there_is_room_again(bench, monkeypatch):
    monkeypatch.setattr(child_module, "_BACKOFF_FIRST", 600.0)
    monkeypatch.setattr(child_module, "_BACKOFF_MAX", 600.0)
    async with bench.running(bench.child()) as child:
        await asyncio.wait_for(child.ready.wait(), 30)
        child.handle.send(signal.SIGKILL)
        await eventually(lambda: child.state is State.BACKOFF)
        assert child.handle is None
        child.try_again()
        await eventually(lambda: bench.back == ["api"])
        assert child.handle.alive
        assert child.restarts == 1


async def test_one_that_no_longer_answers_is_replaced(bench):
    probe = Well()
    async with bench.running(bench.child(probe=probe, patience=0.2)) as child:
        await asyncio.wait_for(child.ready.wait(), 30)
        first = child.handle
        probe.trouble = "no answer"
        await eventually(lambda: child.state is State.UNHEALTHY)
        await eventually(lambda: not first.alive)
        probe.trouble = None
        await eventually(lambda: bench.back == ["api"])
    assert bench.said[0].startswith("api does not answer (no answer for ")


async def test_a_process_is_adopted_and_watched_though_it_is_not_our_child(bench):
    first = bench.child()
    task = asyncio.create_task(first.run())
    await asyncio.wait_for(first.ready.wait(), 30)
    record = bench.files.records()["api"]
    # as after the supervisor was killed: only the record is left
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    second = bench.child()
    second.adopt(record)
    async with bench.running(second):
        await asyncio.wait_for(second.ready.wait(), 30)
        assert second.handle == first.handle
        assert second.since == record.since
        first.handle.send(signal.SIGKILL)
        await eventually(lambda: bench.back == ["api"])
        assert second.handle != first.handle


async def test_one_that_ignores_sigterm_is_killed(bench):
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\nwhile True: signal.pause()"
    child = bench.child((sys.executable, "-c", script), grace=0.3)
    async with bench.running(child):
        await eventually(lambda: "deaf" in (child.log.read_text() if child.log.exists() else ""))
        handle: ProcessHandle = child.handle
    assert not handle.alive


async def test_ready_is_asked_until_it_is_well_and_health_after(bench):
    ready, health = Well(), Well()
    ready.trouble = "HTTP 503"
    child = bench.child(probe=health)
    child.program = replace(child.program, ready=ready)
    async with bench.running(child):
        await eventually(lambda: ready.checks >= 3)
        assert not child.ready.is_set()
        assert health.checks == 0
        ready.trouble = None
        await asyncio.wait_for(child.ready.wait(), 30)
        ready.trouble = "the store is away"
        asked = ready.checks
        await eventually(lambda: health.checks >= 3)
        assert child.state is State.READY
        assert ready.checks == asked


@pytest.mark.parametrize(
    ("ending", "words"),
    [(Exit(signal=9), "killed by signal 9"), (Exit(code=3), "exit status 3"), (Exit(), "ended")],
)
def test_how_it_ended(ending, words):
    assert exit_words(ending) == words


async def test_one_that_must_not_be_used_is_refused_with_its_sentence(bench):
    class Refusing:
        async def check(self):
            raise Unavailable("It is not what it should be.")

    child = bench.child()
    child.program = replace(child.program, ready=Refusing())
    async with bench.running(child):
        refused = await asyncio.wait_for(child.failed, 30)
        assert refused.message == "It is not what it should be."
        assert not child.ready.is_set()
        await eventually(lambda: child.handle is None or not child.handle.alive)
    assert not any(refused.message in said for said in bench.said), "who started it says it, once"


async def test_what_it_reads_is_in_no_file_and_no_argument(bench):
    password = "correct-horse"
    digest = hashlib.sha256(f"{password}\n".encode()).hexdigest()
    script = (
        "import hashlib, signal, sys\n"
        "print('read', hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), flush=True)\n"
        "signal.pause()"
    )
    child = bench.child((sys.executable, "-c", script))
    child.program = replace(child.program, stdin=f"{password}\n")
    async with bench.running(child):
        await eventually(lambda: f"read {digest}" in (child.log.read_text() if child.log.exists() else ""))
        process = Path(f"/proc/{child.handle.pid}")
        data_dir = bench.files.data_dir
        files = [path for place in {data_dir.root, data_dir.run} for path in place.rglob("*") if path.is_file()]
        assert child.log in files
        for file in (*files, process / "cmdline", process / "environ"):
            assert password.encode() not in file.read_bytes(), file


async def test_a_full_disk_keeps_no_process_from_starting(bench, monkeypatch):
    full = OSError(28, "No space left on device")
    real = bench.files.write_record

    def write_record(name, record):
        raise full

    monkeypatch.setattr(bench.files, "write_record", write_record)
    async with bench.running(bench.child()) as child:
        await asyncio.wait_for(child.ready.wait(), 30)
        assert bench.files.records() == {}
        monkeypatch.setattr(bench.files, "write_record", real)
        await eventually(
            lambda: bench.files.records()["api"].handle == child.handle if bench.files.records() else False
        )
    assert bench.said == []
