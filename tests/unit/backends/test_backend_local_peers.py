"""Ports, mounts and users of the local backend's replicas."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.errors import BackendFailed
from llmos_hub.processes.running import noted_exit
from llmos_hub.workload import Mount, Role, Workload, WorkloadRef
from tests.support.backend_contract import of_role, phase, ready, said, until, workload
from tests.support.local_backend import HEAD, QUICK, WORKER, alive, ask, backend, engine, kill, kit, script
from tests.support.waiting import eventually

__all__ = ["backend", "kit"]

REF = WorkloadRef("MLCluster", "user-ada", "ray", "u1")
PEERS = Workload(REF, (Role("head", 1, HEAD), Role("worker", 2, WORKER, after=("head",))))
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who starts processes of other users")


def arguments(replica) -> list[str]:
    return Path(f"/proc/{replica.pid}/cmdline").read_text().split("\0")[:-1]


async def test_a_port_is_kept_over_restarts_rollouts_and_controllers(kit, backend):
    await backend.apply(PEERS)
    seen = await until(backend, REF, ready(3))
    (head,) = of_role(seen, "head")
    port = arguments(head)[-1]
    assert {arguments(worker)[-1] for worker in of_role(seen, "worker")} == {f"127.0.0.1:{port}"}
    await backend.close(stop=True)
    successor = await kit.started()
    await successor.apply(PEERS)
    seen = await until(successor, REF, ready(3))
    assert arguments(of_role(seen, "head")[0])[-1] == port
    changed = Role("head", 1, replace(HEAD, env={"CHANGED": "1"}))
    await successor.apply(replace(PEERS, roles=(changed, PEERS.roles[1])))
    seen = await until(
        successor, REF, lambda o: ready(3)(o) and of_role(o, "head")[0].template == changed.template.hash
    )
    assert arguments(of_role(seen, "head")[0])[-1] == port


async def test_a_port_that_another_program_took_is_replaced_and_the_workers_are_told(kit):
    backend = await kit.started(options=replace(QUICK, back_off_first=2.0))  # time to take the port
    await backend.apply(PEERS)
    seen = await until(backend, REF, ready(3))
    (head,) = of_role(seen, "head")
    port = int(arguments(head)[-1])
    with socket.socket() as other:
        await kill(backend, REF, head)
        await eventually(lambda: not alive(head.pid))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await eventually(lambda: _bound(other, port))  # connections of the dead head linger for a moment
        other.listen()
        seen = await until(backend, REF, lambda o: ready(3)(o) and of_role(o, "head")[0].pid != head.pid)
        (head,) = of_role(seen, "head")
        name = (await said(backend, REF, head)).removeprefix("I am ")
        assert int(arguments(head)[-1]) != port
        seen = await until(backend, REF, lambda o: ready(3)(o) and _all_told(o, arguments(head)[-1]))
        for worker in of_role(seen, "worker"):
            await said(backend, REF, worker, f"met {name}")


def _bound(other: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        other.bind(("127.0.0.1", port))
        return True
    return False


def _all_told(seen, port: str) -> bool:
    return all(each.pid and arguments(each)[-1].endswith(f":{port}") for each in of_role(seen, "worker"))


async def test_each_replica_has_ports_of_its_own(backend):
    argv = tuple({"--socket": "--port", "{socket}": "{port}"}.get(word, word) for word in engine().argv)
    template = replace(engine(), argv=(*argv, "--name", "{port.a}+{port.b}"), ports={"a": 1, "b": 2})
    wanted = workload(template, count=3)
    await backend.apply(wanted)
    seen = await until(backend, wanted.ref, ready(3))
    ports = [port for replica in seen.replicas for port in (await ask(replica, "/")).split("+")]
    assert len({*ports}) == 6


async def test_a_mount_is_a_link_and_a_missing_one_is_told(backend, tmp_path):
    mounts = {"data": Mount(str(tmp_path / "data"), "/data")}
    wanted = workload(script("cat data/file {mount.data}/file; sleep 60", mounts=mounts))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, phase("Waiting"))).replicas
    assert replica.reason == "Volume"
    assert f'no directory "{tmp_path}/data"' in replica.message
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("hello\n")
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert await said(backend, wanted.ref, replica) == "hello"
    await backend.delete(wanted.ref)
    assert (tmp_path / "data" / "file").exists(), "what is mounted stays"


@pytest.fixture
def reachable(tmp_path):
    """Let other users through the directories that pytest made for this one."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and stat.S_IMODE(directory.stat().st_mode) == 0o700:
            directory.chmod(0o711)


@root_only
async def test_a_process_of_another_user_writes_what_is_its_own(backend, reachable):
    nobody = pwd.getpwnam("nobody")
    text = "touch {dir}/mine {socket}; echo {socket} {dir} $HOME $(id -u) $(id -G); exec sleep 60"
    wanted = workload(script(text, user="nobody"))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas
    bound, own, *account = (await said(backend, wanted.ref, replica)).split()
    assert account == [nobody.pw_dir, str(nobody.pw_uid), str(nobody.pw_gid)]
    made, bound, own = Path(own, "mine"), Path(bound), Path(own)
    assert {path.stat().st_uid for path in (made, own, bound, bound.parent)} == {nobody.pw_uid}
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert stat.S_IMODE(bound.parent.stat().st_mode) == 0o750
    assert bound.parent.stat().st_gid == os.getegid(), "the group of the gateway, not the user's"
    for private in (own.parent, own.parent / "record.json", own.parent / "log"):
        assert private.stat().st_uid == 0, "a process that could change its record could become root"
    await backend.delete(wanted.ref)
    assert not bound.parent.exists()


@root_only
async def test_a_job_of_another_user_notes_its_end(backend, reachable):
    wanted = workload(script("id -un; exit 4", completes=True, user="nobody"))
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, phase("Failed"))).replicas
    assert (replica.exit_code, list(replica.last_log_lines)) == (4, ["nobody"])


async def test_users_that_can_not_be_are_refused(backend, monkeypatch):
    with pytest.raises(BackendFailed, match=r'chat can\'t run as "nosuchuser": there is no such user'):
        await backend.apply(workload(engine(user="nosuchuser")))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(BackendFailed, match=r"chat can't run as 4243: only root"):
        await backend.apply(workload(engine(user="4243")))
    assert await backend.refs() == ()


async def test_its_own_user_is_no_other(backend):
    wanted = workload(engine(user=str(os.geteuid())))
    await backend.apply(wanted)
    observed = await until(backend, wanted.ref, ready(1))
    assert [replica.phase for replica in observed.replicas] == ["Ready"]


def test_the_note_of_a_jobs_end_is_neither_a_link_nor_a_pipe(tmp_path):
    (tmp_path / "other").write_text("3\n")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "pipe")
    assert noted_exit(tmp_path / "other").code == 3
    assert noted_exit(tmp_path / "link") is None
    assert noted_exit(tmp_path / "pipe") is None
