"""Controllers are restarted, also by SIGKILL; replicas continue, and all are adopted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from llmos_hub.backends.local.process import ENV_REPLICA
from llmos_hub.processes.handle import ProcessHandle, processes_by_environment
from tests.support.backend_contract import phase, ready, until, workload
from tests.support.local_backend import alive, ask, backend, engine, kit, script
from tests.support.waiting import eventually

__all__ = ["backend", "kit"]

ROOT = Path(__file__).parents[3]


@contextlib.asynccontextmanager
async def controller(kit, *arguments):
    """A backend in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.backend_process", str(kit.directory), str(kit.runtime_dir), *arguments,
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def gone(pid):
    handle = ProcessHandle.of(pid)
    assert handle is None or await asyncio.to_thread(handle.wait_blocking, 5)


async def test_a_killed_controller_is_followed_by_another(kit):
    async with controller(kit, "--count", "2") as process:
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        process.kill()
        await process.wait()
    backend = await kit.started()
    wanted = workload(engine(), count=2)
    seen = await backend.observe(wanted.ref)
    assert [(r.phase, r.restarts) for r in seen.replicas] == [("Ready", 0)] * 2, "ready from the first moment on"
    assert [await ask(replica, "/") for replica in seen.replicas] == ["fake", "fake"]
    await backend.apply(wanted)
    after = await backend.observe(wanted.ref)
    assert [(r.pid, r.started_at, r.ready_at) for r in after.replicas] == [
        (r.pid, r.started_at, r.ready_at) for r in seen.replicas
    ]
    # They are looked after as if they were its own.
    first, second = seen.replicas
    await ask(first, "/unready")
    await until(backend, wanted.ref, lambda o: o.replicas[0].phase == "NotReady")
    os.kill(second.pid, signal.SIGKILL)
    down = await until(backend, wanted.ref, lambda o: o.replicas[1].phase == "Waiting")
    assert down.replicas[1].exit_code is None
    assert "its exit code is not known" in down.replicas[1].message
    await ask(first, "/ready")
    await until(backend, wanted.ref, ready(2))
    await backend.delete(wanted.ref)
    await gone(first.pid)


async def test_one_killed_between_starting_and_writing_it_down_leaves_no_orphan(kit):
    async with controller(kit, "--die-after-spawn") as process:
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    marker = kit.make()._marker
    # the kernel shows an environment a moment after it has started the program
    found = await eventually(lambda: processes_by_environment(ENV_REPLICA, marker))
    (marked,) = found.values()
    backend = await kit.started()
    wanted = workload(engine())
    seen = await until(backend, wanted.ref, ready(1))
    assert [replica.pid for replica in seen.replicas] == [marked[0].pid]
    assert seen.replicas[0].restarts == 0
    assert await ask(seen.replicas[0], "/") == "fake"
    await backend.delete(wanted.ref)
    await gone(marked[0].pid)


async def test_what_died_meanwhile_is_noticed_and_started(kit, backend):
    wanted = workload(engine("slow", "--start-delay", "0.3"), count=2)
    await backend.apply(wanted)
    before = await until(backend, wanted.ref, ready(2))
    await backend.close()
    os.kill(before.replicas[0].pid, signal.SIGKILL)
    os.waitpid(before.replicas[0].pid, 0)
    backend = await kit.started()
    seen = await until(backend, wanted.ref, lambda o: o.replicas[0].reason == "Crashed")
    assert seen.replicas[0].restarts == 1
    assert "while the controllers were away" in seen.replicas[0].message
    assert seen.replicas[1].pid == before.replicas[1].pid
    await until(backend, wanted.ref, ready(2))


async def test_secrets_are_waited_for(kit, backend):
    wanted = workload(engine(secret_env={"KEY": "s3cret-value"}))
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    backend = await kit.successor(backend)
    (seen,) = (await backend.observe(wanted.ref)).replicas
    assert (seen.phase, seen.pid) == ("Ready", before.pid), "what runs has its secrets"
    os.kill(before.pid, signal.SIGKILL)
    told = "as soon as its credentials are provided again"
    (seen,) = (await until(backend, wanted.ref, lambda o: told in o.replicas[0].message)).replicas
    assert (seen.phase, seen.reason) == ("Waiting", "Crashed")
    backend = await kit.successor(backend)
    (seen,) = (await until(backend, wanted.ref, lambda o: told in o.replicas[0].message)).replicas
    assert seen.pid is None
    await backend.apply(wanted)
    (after,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert await ask(after, "/env?KEY") == "s3cret-value"


async def test_a_job_that_ends_meanwhile_has_its_exit_code(kit, backend):
    good, bad = (workload(script(f"sleep 0.3; exit {n}", completes=True), name=f"job{n}") for n in (0, 5))
    pids = []
    for job in (good, bad):
        await backend.apply(job)
        pids.append((await until(backend, job.ref, ready(1))).replicas[0].pid)
    await backend.close()
    for pid in pids:
        await gone(pid)
    backend = await kit.started()
    await until(backend, good.ref, phase("Succeeded"))
    (failed,) = (await until(backend, bad.ref, phase("Failed"))).replicas
    assert failed.exit_code == 5
    # And one that ends after it was adopted.
    late = workload(script("sleep 0.3; kill -9 $$", completes=True), name="late")
    await backend.apply(late)
    await until(backend, late.ref, ready(1))
    backend = await kit.successor(backend)
    (failed,) = (await until(backend, late.ref, phase("Failed"))).replicas
    assert "killed by SIGKILL (9)" in failed.message


async def test_a_job_that_was_ended_from_outside_is_run_again(kit, backend):
    again = workload(script("echo go; test -e once && exit 0; touch once; sleep 60", completes=True))
    await backend.apply(again)
    (before,) = (await until(backend, again.ref, ready(1))).replicas
    lines = backend.logs(again.ref, follow=True)
    async with asyncio.timeout(30):
        assert await anext(lines) == "go"
    await eventually((kit.directory / again.ref.id / before.id / "dir" / "once").exists)
    await lines.aclose()
    await backend.close()
    os.killpg(before.pid, signal.SIGTERM)
    os.waitpid(before.pid, 0)
    backend = await kit.started()
    (after,) = (await until(backend, again.ref, phase("Succeeded"))).replicas
    assert after.id == before.id


async def test_another_boot_means_that_nothing_runs(kit, backend):
    wanted = workload(engine())
    # The same pid and start time in the record of an earlier boot: somebody else's process.
    other = subprocess.Popen(["sleep", "60"])
    try:
        await backend.apply(wanted)
        (before,) = (await until(backend, wanted.ref, ready(1))).replicas
        await backend.close()
        os.killpg(before.pid, signal.SIGKILL)
        os.waitpid(before.pid, 0)
        file = kit.directory / wanted.ref.id / before.id / "record.json"
        handle = ProcessHandle.of(other.pid)
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "pid": handle.pid, "start_time": handle.start_time, "boot": "earlier"}))
        backend = await kit.started()
        (after,) = (await until(backend, wanted.ref, ready(1))).replicas
        assert (after.id, after.restarts) == (before.id, 0)
        await backend.delete(wanted.ref)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_processes_that_no_record_knows_are_killed(kit):
    marker = f"{kit.make()._marker}chat-serve-0123456789/replica-0-1/1"
    stranger = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], ENV_REPLICA: marker})
    other = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], ENV_REPLICA: "0123456789ab/x/y/1"})
    try:
        await kit.started()
        assert not alive(stranger.pid)
        assert other.poll() is None, "another platform's replicas are left alone"
    finally:
        for process in (stranger, other):
            process.kill()
            process.wait()


async def test_a_rollout_goes_on_where_it_was(kit, backend):
    await backend.apply(workload(engine("old"), count=2))
    wanted = workload(engine("new"), count=2)
    before = await until(backend, wanted.ref, ready(2))
    await backend.apply(wanted)
    backend = await kit.successor(backend)
    after = await until(backend, wanted.ref, ready(2))
    assert [await ask(replica, "/") for replica in after.replicas] == ["new", "new"]
    assert len({r.id for r in (*before.replicas, *after.replicas)}) == 4, "numbers are not used again"
    for replica in before.replicas:
        assert not alive(replica.pid)


async def test_a_broken_record_is_no_obstacle(kit, backend):
    wanted, other = workload(engine()), workload(engine(), name="other")
    await backend.apply(wanted)
    await backend.apply(other)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    await until(backend, other.ref, ready(1))
    await backend.close()
    (kit.directory / wanted.ref.id / "workload.json").write_text("{half")
    backend = await kit.started()
    assert list(await backend.refs()) == [other.ref]
    await gone(before.pid)
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(1))
