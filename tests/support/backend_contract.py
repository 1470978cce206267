"""The contract of backends: one suite that all of them run.

A test module subclasses `BackendContract` and provides two fixtures: ``backend`` (started, and closed after the test)
and ``programs`` (templates of known behaviour, and a way to replace a backend by another).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from llmos.errors import NotFound
from llmos_hub.backends.base import Backend, Report
from llmos_hub.sources.base import FetchProgress
from llmos_hub.workload import Mount, Observation, ProcessTemplate, ReplicaState, Role, Workload, WorkloadRef

REPORT = (
    '{"type": "info", "message": "waiting"}',
    '{"type": "progress", "file": "a.gguf", "done": 1, "total": 4, "rate": 2}',
    "not a report",
    '{"type": "progress", "file": "a.gguf", "done": 3, "total": 4, "rate": 2}',
    '{"type": "error", "code": "source_failed", "message": "gone"}',
)
"""The lines that `Programs.reporting` writes."""
PATIENCE = 30.0
"""Seconds until an expected state must be reached; a cluster takes longer than a machine."""


@dataclass
class Programs:
    """Process templates of known behaviour.

    Attributes
    ----------
    serving
        Becomes ready; different texts give different templates.
    unready
        Runs but never becomes ready.
    crashing
        Writes ``last words`` and exits with code 3.
    job
        Writes ``working`` and exits with the given code.
    reporting
        Writes `REPORT` and exits with code 0.
    missing
        Its program doesn't exist.
    successor
        Closes a backend and starts another in its place.
    head
        Writes ``I am ID``, with an id of this start, and tells it to those who ask at its port ``hub``.
    worker
        Becomes ready when it has reached the role ``head`` at its port ``hub``; writes ``met ID`` for each id it finds.
    restart
        Ends the process of a replica, so that the backend starts it or its like again.
    shell
        Runs a line of a shell script to its end, with the given mount as ``data``.
    mount
        A directory in which jobs can write.
    """

    serving: Callable[[str], ProcessTemplate]
    unready: ProcessTemplate
    crashing: ProcessTemplate
    job: Callable[[int], ProcessTemplate]
    reporting: ProcessTemplate
    missing: ProcessTemplate
    successor: Callable[[Backend], Awaitable[Backend]]
    head: ProcessTemplate
    worker: ProcessTemplate
    restart: Callable[[Backend, WorkloadRef, ReplicaState], Awaitable[None]]
    shell: Callable[[str, Mount], ProcessTemplate]
    mount: Mount


def workload(
    template: ProcessTemplate, *, count: int = 1, name: str = "chat", uid: str = "u1", **labels: str
) -> Workload:
    ref = WorkloadRef("ModelService", "user-ada", name, uid)
    return Workload(ref, (Role("replica", count, template),), labels)


async def until(
    backend: Backend, ref: WorkloadRef, good: Callable[[Observation], bool], *, timeout: float | None = None
) -> Observation:
    """Wait for an observation; `changes` wakes the wait, so that it is tested too."""
    timeout = timeout or PATIENCE
    changes = backend.changes()
    seen = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                seen = await backend.observe(ref)
                if seen is not None and good(seen):
                    return seen
                async for changed in changes:
                    if changed == ref:
                        break
                else:
                    pytest.fail("the changes ended")
    except TimeoutError:
        pytest.fail(f"not seen within {timeout} s; last: {seen}")


async def said(backend: Backend, ref: WorkloadRef, replica: ReplicaState, line: str | None = None) -> str:
    """Return the last line that a replica wrote; wait for one, and if `line` is given, for that one."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while not lines or line not in {None, lines[-1]}:
                await asyncio.sleep(0.05)
                lines = [text async for text in backend.logs(ref, replica=replica.id)]
    except TimeoutError:
        pytest.fail(f"{replica.id} never wrote {line}, but {lines}")
    return lines[-1]


def of_role(seen: Observation, role: str) -> list[ReplicaState]:
    """Return the replicas of a role."""
    return [replica for replica in seen.replicas if replica.role == role]


def ready(count: int) -> Callable[[Observation], bool]:
    """Return a condition: the update is complete and that many replicas are ready."""
    return lambda seen: seen.updated and [r.phase for r in seen.replicas] == ["Ready"] * count


def phase(wanted: str) -> Callable[[Observation], bool]:
    """Return a condition: there are replicas, and all are in that phase."""
    return lambda seen: {r.phase for r in seen.replicas} == {wanted}


class BackendContract:
    """The tests; see the module's docstring."""

    endpoints: ClassVar[tuple[str, ...]] = ("unix:///", "http://127.0.0.1:")
    """Prefixes of endpoints' addresses."""

    async def test_serves(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"), count=2, team="vision")
        await backend.apply(wanted)
        seen = await until(backend, wanted.ref, ready(2))
        assert seen.ref == wanted.ref
        assert seen.labels == {"team": "vision"}
        assert list(await backend.refs()) == [wanted.ref]
        assert [r.index for r in seen.replicas] == [0, 1]
        assert len({r.endpoint for r in seen.replicas}) == 2
        for replica in seen.replicas:
            assert replica.endpoint is not None
            assert replica.endpoint.startswith(self.endpoints)
            assert replica.role == "replica"
            assert replica.template == wanted.roles[0].template.hash
            assert replica.pid is not None
            assert replica.started_at is not None
            assert replica.ready_at is not None
            assert replica.ready_at >= replica.started_at
            assert (replica.restarts, replica.reason, replica.message) == (0, "", "")

    async def test_the_same_again_changes_nothing(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"))
        await backend.apply(wanted)
        before = await until(backend, wanted.ref, ready(1))
        await backend.apply(workload(programs.serving("a")))
        after = await until(backend, wanted.ref, ready(1))
        assert [(r.id, r.pid, r.endpoint) for r in after.replicas] == [
            (r.id, r.pid, r.endpoint) for r in before.replicas
        ]

    async def test_scales_and_keeps_what_runs(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"), count=1)
        await backend.apply(wanted)
        first = (await until(backend, wanted.ref, ready(1))).replicas[0]
        await backend.apply(workload(programs.serving("a"), count=3))
        seen = await until(backend, wanted.ref, ready(3))
        assert seen.replicas[0].pid == first.pid
        assert [r.index for r in seen.replicas] == [0, 1, 2]
        await backend.apply(workload(programs.serving("a"), count=1))
        seen = await until(backend, wanted.ref, ready(1))
        assert seen.replicas[0].pid == first.pid
        await backend.apply(workload(programs.serving("a"), count=0))
        seen = await until(backend, wanted.ref, ready(0))
        assert seen.replicas == ()
        assert list(await backend.refs()) == [wanted.ref], "scaled to nothing is not deleted"

    async def test_a_changed_template_replaces_all(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"), count=2)
        await backend.apply(wanted)
        before = await until(backend, wanted.ref, ready(2))
        changed = workload(programs.serving("b"), count=2)
        await backend.apply(changed)
        after = await until(backend, wanted.ref, ready(2))
        assert {r.template for r in after.replicas} == {changed.roles[0].template.hash}
        assert {r.id for r in after.replicas}.isdisjoint({r.id for r in before.replicas})
        assert [r.index for r in after.replicas] == [0, 1]

    async def test_a_template_that_does_not_get_ready_takes_nothing_away(
        self, backend: Backend, programs: Programs
    ) -> None:
        wanted = workload(programs.serving("a"), count=2)
        await backend.apply(wanted)
        before = await until(backend, wanted.ref, ready(2))
        await backend.apply(workload(programs.unready, count=2))
        seen = await until(backend, wanted.ref, lambda o: any(r.phase == "Starting" and r.pid for r in o.replicas))
        assert not seen.updated
        assert {r.id for r in seen.replicas if r.phase == "Ready"} == {r.id for r in before.replicas}
        assert len(seen.replicas) == 3, "one more at a time"
        await backend.apply(wanted)
        after = await until(backend, wanted.ref, ready(2))
        assert [r.pid for r in after.replicas] == [r.pid for r in before.replicas]

    async def test_several_roles(self, backend: Backend, programs: Programs) -> None:
        ref = WorkloadRef("MLCluster", "user-ada", "ray", "u2")
        head = Role("head", 1, programs.serving("head"))
        await backend.apply(Workload(ref, (head, Role("worker", 2, programs.serving("worker")))))
        seen = await until(backend, ref, ready(3))
        assert [r.role for r in seen.replicas] == ["head", "worker", "worker"]
        await backend.apply(Workload(ref, (head,)))
        after = await until(backend, ref, ready(1))
        assert after.replicas[0].pid == seen.replicas[0].pid

    async def test_workers_find_the_head_wherever_it_is_started(self, backend: Backend, programs: Programs) -> None:
        ref = WorkloadRef("MLCluster", "user-ada", "ray", "u3")
        workers = Role("worker", 2, programs.worker, after=("head",))
        await backend.apply(Workload(ref, (workers, Role("head", 1, programs.head))))
        seen = await until(backend, ref, ready(3))
        (head,) = of_role(seen, "head")
        pids = {replica.pid for replica in of_role(seen, "worker")}
        assert all(replica.started_at >= head.ready_at for replica in of_role(seen, "worker"))
        names = [await self._met(backend, seen)]

        await programs.restart(backend, ref, head)
        seen = await until(backend, ref, lambda o: ready(3)(o) and of_role(o, "head")[0].pid != head.pid)
        names.append(await self._met(backend, seen))

        changed = replace(programs.head, env={"CHANGED": "1"})
        await backend.apply(Workload(ref, (workers, Role("head", 1, changed))))
        seen = await until(backend, ref, lambda o: ready(3)(o) and of_role(o, "head")[0].template == changed.hash)
        names.append(await self._met(backend, seen))
        assert len(set(names)) == 3
        assert {replica.pid for replica in of_role(seen, "worker")} == pids, "a worker is not stopped with the head"

    @staticmethod
    async def _met(backend: Backend, seen: Observation) -> str:
        """Return the id of the head that all workers have met last."""
        (head,) = of_role(seen, "head")
        name = (await said(backend, seen.ref, head)).removeprefix("I am ")
        for replica in of_role(seen, "worker"):
            await said(backend, seen.ref, replica, f"met {name}")
        return name

    async def test_a_role_waits_for_those_before_it(self, backend: Backend, programs: Programs) -> None:
        ref = WorkloadRef("MLCluster", "user-ada", "ray", "u4")
        workers = Role("worker", 2, programs.serving("worker"), after=("head",))
        await backend.apply(Workload(ref, (Role("head", 1, programs.unready), workers)))
        seen = await until(
            backend, ref, lambda o: len(o.replicas) == 3 and all(r.pid is not None for r in of_role(o, "head"))
        )
        for replica in of_role(seen, "worker"):
            assert (replica.phase, replica.reason, replica.pid) == ("Waiting", "Dependency", None)
            assert "head" in replica.message
        await backend.apply(Workload(ref, (Role("head", 1, programs.serving("head")), workers)))
        seen = await until(backend, ref, ready(3))
        assert {replica.reason for replica in seen.replicas} == {""}

    async def test_roles_are_stopped_in_the_reverse_order(self, backend: Backend, programs: Programs) -> None:
        ref = WorkloadRef("MLCluster", "user-ada", "ray", "u5")
        head, worker = Role("head", 1, programs.head), Role("worker", 2, programs.worker, after=("head",))
        await backend.apply(Workload(ref, (head, worker)))
        await until(backend, ref, ready(3))
        changes = backend.changes()
        removal = asyncio.create_task(backend.delete(ref))
        async with asyncio.timeout(PATIENCE):
            async for changed in changes:
                seen = await backend.observe(ref) if changed == ref else None
                if seen is None:
                    break
                if of_role(seen, "worker"):
                    assert [replica.phase for replica in of_role(seen, "head")] == ["Ready"]
            await removal
        assert await backend.observe(ref) is None

    async def test_mounts_outlive_replicas(self, backend: Backend, programs: Programs) -> None:
        read_only = replace(programs.mount, read_only=True)
        writes = workload(programs.shell("echo hello > {mount.data}/greeting", programs.mount), name="writes")
        reads = workload(programs.shell("cat {mount.data}/greeting", read_only), name="reads")
        for wanted in (writes, reads):
            await backend.apply(wanted)
            await until(backend, wanted.ref, phase("Succeeded"))
        assert [line async for line in backend.logs(reads.ref)] == ["hello"]

    async def test_a_crash_is_told_with_its_last_lines(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.crashing)
        await backend.apply(wanted)
        (replica,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
        assert replica.reason == "Crashed"
        assert "exit code 3" in replica.message
        assert replica.exit_code == 3
        assert replica.restarts >= 1
        assert replica.pid is None
        assert replica.retry_at is not None
        assert "last words" in replica.last_log_lines

    async def test_a_program_that_is_not_there(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.missing)
        await backend.apply(wanted)
        (replica,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
        assert replica.reason == "NotFound"
        assert programs.missing.argv[0] in replica.message
        assert replica.retry_at is not None

    async def test_a_job_succeeds_once(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.job(0))
        await backend.apply(wanted)
        (replica,) = (await until(backend, wanted.ref, phase("Succeeded"))).replicas
        assert replica.exit_code == 0
        await backend.apply(wanted)
        seen = await until(backend, wanted.ref, phase("Succeeded"))
        assert seen.updated
        assert [r.id for r in seen.replicas] == [replica.id]
        assert [line async for line in backend.logs(wanted.ref)] == ["working"]

    async def test_a_job_fails_and_is_not_repeated(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.job(4))
        await backend.apply(wanted)
        (replica,) = (await until(backend, wanted.ref, phase("Failed"))).replicas
        assert (replica.exit_code, replica.reason, replica.restarts) == (4, "Crashed", 0)
        assert "exit code 4" in replica.message
        assert list(replica.last_log_lines) == ["working"]
        await backend.apply(workload(programs.job(0)))
        (other,) = (await until(backend, wanted.ref, phase("Succeeded"))).replicas
        assert other.id != replica.id

    async def test_logs(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.job(0), count=2)
        await backend.apply(wanted)
        seen = await until(backend, wanted.ref, phase("Succeeded"))
        assert [line async for line in backend.logs(wanted.ref)] == ["working", "working"]
        one = seen.replicas[0].id
        assert [line async for line in backend.logs(wanted.ref, replica=one)] == ["working"]
        assert [line async for line in backend.logs(wanted.ref, tail=0)] == []
        async with asyncio.timeout(30):
            assert [line async for line in backend.logs(wanted.ref, follow=True)] == ["working", "working"]
        with pytest.raises(NotFound):
            _ = [line async for line in backend.logs(wanted.ref, replica="replica-9-9")]
        with pytest.raises(NotFound):
            _ = [line async for line in backend.logs(replace(wanted.ref, name="other"))]

    async def test_progress(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.reporting)
        await backend.apply(wanted)
        seen = await until(backend, wanted.ref, phase("Succeeded"))
        for replica in (None, seen.replicas[0].id):
            report = await backend.progress(wanted.ref, replica=replica)
            assert report.progress == FetchProgress("a.gguf", done=3, total=4, rate=2)
            assert (report.info, report.code, report.message) == ("waiting", "source_failed", "gone")
            assert report.files is None
        plain = workload(programs.job(0), name="plain")
        await backend.apply(plain)
        await until(backend, plain.ref, phase("Succeeded"))
        for silent in (plain.ref, replace(wanted.ref, name="other")):
            assert await backend.progress(silent) == Report()

    async def test_delete_removes_all(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"), count=2)
        other = workload(programs.serving("a"), name="other")
        await backend.apply(wanted)
        await backend.apply(other)
        await until(backend, wanted.ref, ready(2))
        await until(backend, other.ref, ready(1))
        await backend.delete(wanted.ref)
        assert await backend.observe(wanted.ref) is None
        assert list(await backend.refs()) == [other.ref]
        with pytest.raises(NotFound):
            _ = [line async for line in backend.logs(wanted.ref)]
        await backend.delete(wanted.ref)
        await backend.apply(wanted)
        await until(backend, wanted.ref, ready(2))

    async def test_a_name_used_anew_is_another_workload(self, backend: Backend, programs: Programs) -> None:
        first, second = workload(programs.serving("a"), uid="u1"), workload(programs.serving("a"), uid="u2")
        await backend.apply(first)
        await backend.apply(second)
        one, two = await until(backend, first.ref, ready(1)), await until(backend, second.ref, ready(1))
        assert one.replicas[0].endpoint != two.replicas[0].endpoint

    async def test_unknown_is_none(self, backend: Backend, programs: Programs) -> None:
        assert await backend.observe(workload(programs.unready).ref) is None
        assert list(await backend.refs()) == []

    async def test_changes_are_told_once_for_all(self, backend: Backend, programs: Programs) -> None:
        changes = backend.changes()
        wanted = workload(programs.serving("a"), count=2)
        await backend.apply(wanted)
        await until(backend, wanted.ref, ready(2))
        async with asyncio.timeout(30):
            assert await anext(changes) == wanted.ref
        other = workload(programs.serving("a"), name="other")
        await backend.apply(other)
        async with asyncio.timeout(30):
            late = 0  # a cluster's last word on what is ready already may come now
            while (changed := await anext(changes)) != other.ref:
                assert changed == wanted.ref
                late += 1
            assert late <= 1, "several changes come as one, and nothing is told without a change"
            await backend.delete(wanted.ref)
            while (changed := await anext(changes)) != wanted.ref:
                assert changed == other.ref

    async def test_what_runs_goes_on_under_the_next_backend(self, backend: Backend, programs: Programs) -> None:
        wanted, job = workload(programs.serving("a"), count=2), workload(programs.job(0), name="job")
        await backend.apply(wanted)
        await backend.apply(job)
        before = await until(backend, wanted.ref, ready(2))
        done = await until(backend, job.ref, phase("Succeeded"))
        changes = backend.changes()
        successor = await programs.successor(backend)
        async with asyncio.timeout(30):
            assert [ref async for ref in changes] == [], "closing ends the changes"
        after = await successor.observe(wanted.ref)
        assert after is not None
        assert after.updated
        assert [(r.id, r.phase, r.pid, r.endpoint) for r in after.replicas] == [
            (r.id, "Ready", r.pid, r.endpoint) for r in before.replicas
        ]
        assert set(await successor.refs()) == {wanted.ref, job.ref}
        again = await until(successor, job.ref, phase("Succeeded"))
        assert [r.id for r in again.replicas] == [r.id for r in done.replicas], "a job that is done isn't run again"
        await successor.apply(wanted)
        after = await until(successor, wanted.ref, ready(2))
        assert [r.pid for r in after.replicas] == [r.pid for r in before.replicas]
