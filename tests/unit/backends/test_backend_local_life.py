"""Replicas of the local backend: start, failure, recovery and end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from llmos.errors import BackendFailed
from llmos.proc import MachineMemory
from llmos_hub.backends.local import replica as replica_module
from llmos_hub.backends.local.options import Options
from tests.support.backend_contract import phase, ready, until, workload
from tests.support.local_backend import HEALTH, QUICK, alive, ask, backend, engine, kit, script
from tests.support.waiting import eventually

__all__ = ["backend", "kit"]

MI = 2**20


async def test_environment_is_clean_and_filled_in(backend, monkeypatch, kit):
    template = engine(env={"PLACE": "{dir}|{index}|{other}|{socket}"}, secret_env={"KEY": "{dir}-s3cret-value"})
    wanted = workload(template)
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    names = set((await ask(replica, "/environ")).split())
    assert {"PLACE", "KEY", "LLMOS_REPLICA", "PATH"} <= names <= {
        "PLACE", "KEY", "LLMOS_REPLICA", "PATH", "HOME", "LANG", "TMPDIR", "LLMOS_INSTANCE", "LC_CTYPE",
    }  # fmt: skip
    place, index, other, socket = (await ask(replica, "/env?PLACE")).split("|")
    assert Path(place).is_dir()
    assert (index, other) == ("0", "{other}")
    assert f"unix://{socket}" == replica.endpoint
    assert Path(socket).parent.stat().st_mode & 0o777 == 0o700
    assert await ask(replica, "/env?KEY") == "{dir}-s3cret-value", "a secret is passed on as it is"


async def test_secrets_are_written_nowhere(backend, kit):
    wanted = workload(
        script(
            "echo my key is $KEY; printf %0496d 0; echo $KEY again; exit 1",
            secret_env={"KEY": "s3cret-value"},
            readiness=HEALTH,
        )
    )
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert list(replica.last_log_lines) == ["my key is ***", "0" * 496 + "*** "], "in lines of limited length"
    await backend.delete(wanted.ref)
    wanted = workload(engine(secret_env={"KEY": "s3cret-value"}))
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(1))
    files = [path for path in kit.directory.rglob("*") if path.is_file()]
    assert any(path.name == "record.json" for path in files)
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


async def test_a_port_where_the_template_has_one(backend):
    argv = tuple({"--socket": "--port", "{socket}": "{port}"}.get(word, word) for word in engine().argv)
    wanted = workload(replace(engine(), argv=argv), count=2)
    await backend.apply(wanted)
    seen = await until(backend, wanted.ref, ready(2))
    for replica in seen.replicas:
        assert replica.endpoint.startswith("http://127.0.0.1:")
        assert await ask(replica, "/") == "fake"


async def test_a_crash_is_mended(backend):
    wanted = workload(engine())
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    with pytest.raises(OSError):
        await ask(before, "/crash?7")
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert (down.exit_code, down.reason, down.restarts) == (7, "Crashed", 1)
    assert list(down.last_log_lines) == ["fake starts", "crashing with 7"]
    (after,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert after.id == before.id
    assert after.pid != before.pid
    assert (after.restarts, after.reason, after.message, list(after.last_log_lines)) == (1, "", "", [])
    os.kill(after.pid, signal.SIGKILL)
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert "killed by SIGKILL (9)" in down.message
    assert down.exit_code == 137


async def test_what_the_system_refuses_to_start_is_a_sentence(backend, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(replica_module, "spawn", full)
    wanted = workload(engine())
    await backend.apply(wanted)
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert down.message == f"{wanted.ref.name} can't be started: No space left on device."


async def test_restarts_come_slower_and_slower(backend):
    wanted = workload(script("exit 1", readiness=HEALTH))
    await backend.apply(wanted)
    waits = []
    for restarts in (1, 2, 3):
        seen = await until(
            backend, wanted.ref, lambda o, n=restarts: o.replicas[0].restarts == n and o.replicas[0].phase == "Waiting"
        )
        waits.append((seen.replicas[0].retry_at - seen.replicas[0].started_at).total_seconds())
    assert waits[0] >= 0.2
    assert waits[1] >= 0.4
    assert waits[2] >= 0.8


async def test_readiness_comes_and_goes_without_a_restart(backend):
    wanted = workload(engine())
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    await ask(before, "/unready")
    (seen,) = (await until(backend, wanted.ref, phase("NotReady"))).replicas
    assert "GET /health gave HTTP 503" in seen.message
    await ask(before, "/ready")
    (after,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert (after.pid, after.restarts, after.message) == (before.pid, 0, "")


async def test_one_that_hangs_is_restarted(backend):
    wanted = workload(replace(engine(), liveness=replace(HEALTH, timeout=0.2)))
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    hanging = asyncio.ensure_future(ask(before, "/hang"))
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert down.reason == "Unhealthy"
    assert "nothing within 0.2 s" in down.message
    await until(backend, wanted.ref, ready(1))
    await asyncio.gather(hanging, return_exceptions=True)


async def test_one_that_takes_too_long_to_start_is_stopped(backend):
    wanted = workload(engine("slow", "--start-delay", "60", startup_timeout=2.0))
    await backend.apply(wanted)
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert down.reason == "StartupTimeout"
    assert "not ready within 2 s" in down.message
    assert "slow starts" in down.last_log_lines


async def test_over_its_memory_limit_it_is_killed_with_the_reason(backend):
    wanted = workload(engine(memory_limit=100 * MI))
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert before.memory_limit == 100 * MI
    with contextlib.suppress(OSError):  # it may be killed before it answers
        await ask(before, "/leak?120")
    (down,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert down.reason == "OutOfMemory"
    assert "of 100 MiB. Give it more: llmos set chat --memory 256Mi" in down.message
    assert down.message.startswith("chat ran out of memory: used 1")
    (after,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert after.restarts == 1


async def test_it_starts_when_memory_comes_free(kit):
    memory = MachineMemory(total=1000 * MI, available=300 * MI)
    backend = await kit.started(memory=lambda: memory)
    first = workload(engine(memory_request=200 * MI), name="first")
    second = workload(engine(memory_request=200 * MI), name="second")
    await backend.apply(first)
    await until(backend, first.ref, ready(1))
    await backend.apply(second)
    (waiting,) = (await until(backend, second.ref, phase("Waiting"))).replicas
    assert waiting.reason == "InsufficientMemory"
    assert waiting.pid is None
    assert waiting.restarts == 0
    assert "second needs 200 MiB of memory and 1" in waiting.message, "what first hasn't used yet is kept for it"
    assert "are kept for what is still loading" in waiting.message
    await backend.delete(first.ref)
    await until(backend, second.ref, ready(1))
    third = workload(engine(memory_request=2000 * MI), name="third")
    await backend.apply(third)
    (waiting,) = (await until(backend, third.ref, phase("Waiting"))).replicas
    assert "third needs 2.0 GiB of memory and this machine has 1000 MiB in all" in waiting.message


async def test_where_there_is_no_room_for_two_the_old_one_goes_first(kit):
    asked = 0

    def memory() -> MachineMemory:
        nonlocal asked
        asked += 1
        return MachineMemory(total=1000 * MI, available=300 * MI)

    backend = await kit.started(memory=memory)
    await backend.apply(workload(engine("a", memory_request=200 * MI)))
    wanted = workload(engine("b", memory_request=210 * MI))
    await until(backend, wanted.ref, ready(1))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert await ask(replica, "/") == "b"
    await backend.apply(workload(engine("c", memory_request=900 * MI)))
    await until(backend, wanted.ref, lambda o: any(r.reason == "InsufficientMemory" for r in o.replicas))
    asked = 0
    await eventually(lambda: asked >= 3, "further attempts to start it")
    seen = await backend.observe(wanted.ref)
    assert [r.phase for r in seen.replicas] == ["Ready", "Waiting"], "what works stays where the new one can't run"
    assert await ask(seen.replicas[0], "/") == "b"


async def test_a_rollout_drops_no_request(kit):
    backend = await kit.started(options=replace(QUICK, drain=1.0))
    names, failures, asked = set(), [], 0
    both = asyncio.Event()
    await backend.apply(workload(engine("old"), count=2))
    wanted = workload(engine("new"), count=2)
    await until(backend, wanted.ref, ready(2))
    done = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal asked
        while not done.is_set():
            for attempt in (1, 2):
                seen = await backend.observe(wanted.ref)
                there = [r for r in seen.replicas if r.phase == "Ready"]
                asked += 1
                try:
                    names.add(await ask(there[(asked + number) % len(there)], "/slow?0.01"))
                except (OSError, ZeroDivisionError) as error:
                    if attempt == 2:
                        failures.append(error)
                else:
                    break
            if names == {"old", "new"}:
                both.set()

    clients = [asyncio.create_task(client(number)) for number in range(3)]
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(2))
    async with asyncio.timeout(30):
        await both.wait()
    done.set()
    await asyncio.gather(*clients)
    assert failures == [], f"of {asked} requests"


async def test_what_is_being_answered_is_answered(backend, tmp_path):
    go_on = tmp_path / "go on"
    wanted = workload(engine(grace=60.0))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    answer = asyncio.ensure_future(ask(replica, f"/hold?{quote(str(go_on))}"))
    lines = backend.logs(wanted.ref, follow=True)
    async with asyncio.timeout(30):
        while await anext(lines) != "holding":
            pass
        await backend.apply(workload(engine(grace=60.0), count=0))
        (leaving,) = (await backend.observe(wanted.ref)).replicas
        assert leaving.phase == "Stopping", "it is out of the ready ones at once"
        while await anext(lines) != "fake stops":
            pass
    await lines.aclose()
    assert not answer.done()
    go_on.touch()
    assert await answer == "fake"
    await until(backend, wanted.ref, ready(0))
    assert not Path(replica.endpoint.removeprefix("unix://")).exists()


async def test_one_that_leaves_still_answers_those_who_have_not_heard_of_it(kit):
    backend = await kit.started(options=replace(QUICK, drain=600.0))
    wanted, other = workload(engine()), workload(engine(), name="other")
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    await backend.apply(workload(engine(), count=0))
    await backend.apply(other)
    await until(backend, other.ref, ready(1))
    (leaving,) = (await backend.observe(wanted.ref)).replicas
    assert leaving.phase == "Stopping"
    assert await ask(replica, "/") == "fake"
    os.kill(replica.pid, signal.SIGTERM)  # ends the draining, too
    await until(backend, wanted.ref, ready(0))


async def test_one_that_ignores_sigterm_is_killed_with_its_children(backend):
    text = 'trap "" TERM; (trap "" TERM; sleep 60) & echo $!; while :; do sleep 1; done'
    wanted = workload(replace(script(text), grace=0.2))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    async with asyncio.timeout(30):
        child = int(await anext(backend.logs(wanted.ref, follow=True)))
    assert alive(child)
    await backend.delete(wanted.ref)
    assert not alive(replica.pid)
    assert not alive(child)


async def test_children_that_left_the_session_go_too(backend):
    wanted = workload(engine())
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    child = int(await ask(replica, "/child"))
    assert alive(child)
    os.kill(replica.pid, signal.SIGKILL)
    await until(backend, wanted.ref, phase("Waiting"))
    assert not alive(child)


async def test_a_job_is_told_to_stop_and_may_finish(backend):
    wanted = workload(script('trap "echo bye; exit 0" TERM; echo go; while :; do sleep 0.02; done', completes=True))
    await backend.apply(wanted)
    lines = backend.logs(wanted.ref, follow=True)
    async with asyncio.timeout(30):
        assert await anext(lines) == "go"
        await backend.apply(workload(wanted.roles[0].template, count=0))
        await backend.delete(wanted.ref)
        assert "bye" in [line async for line in lines], "its last words are seen though its log is gone"


async def test_logs_are_rotated_while_they_are_written(kit):
    backend = await kit.started(options=replace(QUICK, log_bytes=5000))
    wanted = workload(engine())
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    log = kit.directory / wanted.ref.id / replica.id / "log"
    number = 0
    async with asyncio.timeout(30):
        while not log.with_name("log.1").exists() or log.stat().st_size > 5000:  # the copy is there before the cut
            number += 1
            await ask(replica, f"/say?{number:04}{'x' * 200}")
    await ask(replica, "/say?after")
    lines = [line async for line in backend.logs(wanted.ref, tail=None)]
    assert lines[0] == "fake starts"
    assert lines[-1] == "after"
    assert log.stat().st_size < 2000, "the writer goes on at the beginning"


async def test_memory_alone_is_told_now_and_then(kit):
    backend = await kit.started(options=replace(QUICK, memory_news=0.2, memory_period=0.02))
    wanted = workload(engine())
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(1))
    changes = backend.changes()
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(30):
        for _ in range(3):
            assert await anext(changes) == wanted.ref
    assert asyncio.get_running_loop().time() - begun > 0.35
    (replica,) = (await backend.observe(wanted.ref)).replicas
    assert 5 * MI < replica.memory < 100 * MI


async def test_a_crash_right_after_the_start_does_not_undo_the_count(backend):
    wanted = workload(engine(), count=2)
    await backend.apply(wanted)
    seen = await until(backend, wanted.ref, ready(2))
    os.kill(seen.replicas[0].pid, signal.SIGKILL)
    await until(backend, wanted.ref, lambda o: any(r.phase == "Waiting" for r in o.replicas))
    await backend.apply(workload(engine(), count=1))
    after = await until(backend, wanted.ref, ready(1))
    assert after.replicas[0].pid == seen.replicas[1].pid, "the one that works is kept"


async def test_what_can_not_be_recorded_is_refused(backend, kit):
    wanted = workload(engine())
    (kit.directory / wanted.ref.id).write_text("in the way")
    with pytest.raises(BackendFailed, match="chat can't be recorded"):
        await backend.apply(wanted)
    assert await backend.observe(wanted.ref) is None
    (kit.directory / wanted.ref.id).unlink()
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(1))


async def test_two_on_one_directory_are_refused(backend, kit):
    other = kit.make(options=replace(QUICK, lock_timeout=0.05))
    with pytest.raises(BackendFailed, match="Another controller is in charge"):
        await other.start()


async def test_a_runtime_directory_too_long_for_sockets_is_refused(kit):
    kit.runtime_dir = kit.runtime_dir / ("x" * 90)
    with pytest.raises(BackendFailed, match="too long a path for sockets"):
        await kit.make().start()


async def test_closing_with_stop_leaves_nothing_running(kit):
    backend = await kit.started(options=Options())
    wanted = workload(engine(), count=2)
    await backend.apply(wanted)
    seen = await until(backend, wanted.ref, ready(2))
    await backend.close(stop=True)
    assert not [r for r in seen.replicas if alive(r.pid)]
    assert not list(kit.runtime_dir.glob("*.sock"))
