"""The fake backend fulfils the contract, and does what tests tell it to."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import partial

import pytest

from llmos.errors import BackendFailed
from llmos_hub.workload import Mount, ProcessTemplate, ReplicaState, Role, Workload, WorkloadRef
from tests.support.backend_contract import REPORT, BackendContract, Programs, phase, ready, until, workload
from tests.support.fake_backend import Behaviour, FakeBackend, World

WORDS = ("last words",)
NAMES = itertools.count()


def behave(workload: Workload, role: Role, _: int, world: World) -> Behaviour:
    program, *arguments = role.template.argv
    if program == "crashing":
        state = {"phase": "Waiting", "reason": "Crashed", "message": "chat crashed: exit code 3", "exit_code": 3}
        return Behaviour({**state, "restarts": 1, "retry_at": datetime.now(UTC), "last_log_lines": WORDS}, WORDS)
    if program == "missing":
        return Behaviour(
            {"phase": "Waiting", "reason": "NotFound", "message": "missing", "retry_at": datetime.now(UTC)}
        )
    if program == "reporting":
        return Behaviour({"phase": "Succeeded", "exit_code": 0}, REPORT)
    if program == "unready":
        return Behaviour({"phase": "Starting"})
    if program == "head":
        name = next(NAMES)
        for id_, lines in world.entries[workload.ref].logs.items():
            if id_.startswith("worker"):
                lines.append(f"met {name}")
        return Behaviour(log=(f"I am {name}",))
    if program == "worker":
        (head,) = (lines for id_, lines in world.entries[workload.ref].logs.items() if id_.startswith("head"))
        return Behaviour(log=(head[-1].replace("I am", "met"),))
    if program == "shell":
        return Behaviour({"phase": "Succeeded", "exit_code": 0}, ("hello",) if arguments[0].startswith("cat") else ())
    if program == "job" and arguments == ["0"]:
        return Behaviour({"phase": "Succeeded", "exit_code": 0}, ("working",))
    if program == "job":
        state = {"phase": "Failed", "reason": "Crashed", "message": "exit code 4", "exit_code": 4}
        return Behaviour({**state, "last_log_lines": ("working",)}, ("working",))
    return Behaviour()


def make(world: World) -> FakeBackend:
    return FakeBackend(partial(behave, world=world), world=world)


async def restart(backend: FakeBackend, ref: WorkloadRef, replica: ReplicaState) -> None:
    wanted = backend.world.entries[ref].workload
    role = next(role for role in wanted.roles if role.name == replica.role)
    (line,) = backend.behave(wanted, role, replica.index).log
    backend.say(ref, line, replica.id)
    backend.set(ref, replica.id, pid=replica.pid + 1, restarts=1)


@pytest.fixture
async def backend():
    backend = make(World())
    await backend.start()
    yield backend
    await backend.close(stop=True)


@pytest.fixture
def programs():
    async def successor(backend):
        await backend.close()
        return make(backend.world)

    return Programs(
        serving=lambda text: ProcessTemplate(("serving", text)),
        unready=ProcessTemplate(("unready",)),
        crashing=ProcessTemplate(("crashing",)),
        job=lambda code: ProcessTemplate(("job", str(code)), completes=True),
        reporting=ProcessTemplate(("reporting",), completes=True),
        missing=ProcessTemplate(("missing",)),
        successor=successor,
        head=ProcessTemplate(("head", "{port.hub}"), ports={"hub": 9000}),
        worker=ProcessTemplate(("worker", "{head.address}:{head.port.hub}")),
        restart=restart,
        shell=lambda text, mount: ProcessTemplate(("shell", text), completes=True, mounts={"data": mount}),
        mount=Mount("/data", "/data"),
    )


class TestContract(BackendContract):
    pass


async def test_a_test_can_make_things_happen(backend, programs):
    wanted = workload(programs.unready, count=2)
    changes = backend.changes()
    await backend.apply(wanted)
    assert await anext(changes) == wanted.ref
    backend.set(wanted.ref, phase="Ready", memory=5)
    assert await anext(changes) == wanted.ref
    seen = await until(backend, wanted.ref, ready(2))
    assert {r.memory for r in seen.replicas} == {5}
    backend.set(wanted.ref, seen.replicas[1].id, phase="Waiting", reason="OutOfMemory", restarts=1)
    seen = await backend.observe(wanted.ref)
    assert [r.reason for r in seen.replicas] == ["", "OutOfMemory"]


async def test_a_rollout_waits_for_the_test(backend, programs):
    wanted = workload(programs.serving("a"))
    await backend.apply(wanted)
    await backend.apply(workload(programs.unready))
    seen = await backend.observe(wanted.ref)
    assert [r.phase for r in seen.replicas] == ["Ready", "Starting"]
    backend.set(wanted.ref, seen.replicas[1].id, phase="Ready")
    seen = await backend.observe(wanted.ref)
    assert [(r.id, r.phase) for r in seen.replicas] == [("replica-0-2", "Ready")]


async def test_logs_are_followed(backend, programs):
    wanted = workload(programs.serving("a"))
    await backend.apply(wanted)
    lines = backend.logs(wanted.ref, follow=True)
    backend.say(wanted.ref, "one")
    assert await anext(lines) == "one"
    backend.say(wanted.ref, "two")
    assert await anext(lines) == "two"
    await backend.delete(wanted.ref)
    assert [line async for line in lines] == []


async def test_it_fails_when_told_to(backend, programs):
    backend.failure = "The disk is full."
    with pytest.raises(BackendFailed, match="The disk is full"):
        await backend.apply(workload(programs.unready))
    assert await backend.refs() == ()
    backend.failure = None
    await backend.apply(workload(programs.unready))
    await until(backend, workload(programs.unready).ref, phase("Starting"))
