"""Processes that are spawned, watched, stopped and found again, with real ones."""

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmos import proc
from llmos.errors import BackendFailed
from llmos_hub.processes import users as users_module
from llmos_hub.processes.handle import ProcessHandle, end_all, processes_by_environment, processes_with_environment
from llmos_hub.processes.running import Exit, Running, noted_exit
from llmos_hub.processes.spawn import spawn
from llmos_hub.processes.users import find_user
from tests.support.waiting import eventually

MARK = "LLMOS_TEST_MARK"
DEAF = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"


class Kit:
    """A factory of processes; those that are left are killed after the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.mark = f"{root}-{time.monotonic_ns()}"
        self.made: list[Running] = []

    def spawn(self, *argv: str, **options) -> Running:
        environment = {"PATH": os.defpath, MARK: self.mark}
        self.made.append(spawn(argv, environment, self.root, self.log, mark=MARK, **options))
        return self.made[-1]

    def shell(self, script: str, **options) -> Running:
        return self.spawn("/bin/sh", "-c", script, **options)

    async def said(self, text: str) -> None:
        await eventually(lambda: text in self.log.read_text())


@pytest.fixture
async def kit(tmp_path):
    made = Kit(tmp_path)
    yield made
    for running in made.made:
        running.release()
    end_all(processes_with_environment(MARK, made.mark), signal.SIGKILL, 10)


async def ending(running: Running) -> Exit:
    return await asyncio.wait_for(asyncio.shield(running.exited), 30)


async def test_it_has_its_own_session_directory_environment_and_log(kit):
    running = kit.shell("pwd; env; cat; echo wrong >&2; exec sleep 60")
    await kit.said("wrong")
    assert proc.session(running.pid) == running.pid
    lines = kit.log.read_text().splitlines()
    assert lines[0] == str(kit.root)
    assert {line.partition("=")[0] for line in lines if "=" in line} <= {"PATH", "PWD", MARK, "_", "SHLVL", "OLDPWD"}
    assert kit.log.stat().st_mode & 0o777 == 0o600
    await running.stop(10)
    assert await ending(running) == Exit(signal=signal.SIGTERM)


async def test_what_it_reads(kit):
    assert await ending(kit.spawn("/bin/cat", stdin="a pass phrase\n")) == Exit(code=0)
    assert await ending(kit.spawn("/bin/cat")) == Exit(code=0)
    assert kit.log.read_text() == "a pass phrase\n"


@pytest.mark.parametrize(
    ("script", "expected"), [("exit 0", Exit(code=0)), ("exit 7", Exit(code=7)), ("kill -9 $$", Exit(signal=9))]
)
async def test_how_it_ended(kit, script, expected):
    assert await ending(kit.shell(script)) == expected


async def test_a_program_that_is_missing(kit):
    with pytest.raises(FileNotFoundError):
        kit.spawn("/nowhere/at/all")


async def test_one_that_ignores_the_first_signal_is_killed_with_its_group(kit):
    running = kit.shell(f"({DEAF}) & {DEAF}")
    await eventually(lambda: kit.log.read_text().count("deaf") == 2)
    await running.stop(0.1, patience=30)
    assert await ending(running) == Exit(signal=signal.SIGKILL)
    await eventually(lambda: not processes_with_environment(MARK, kit.mark))


async def test_the_first_signal_is_the_callers(kit):
    running = kit.shell("trap 'exit 5' INT; echo here; while :; do sleep 0.05; done")
    await kit.said("here")
    await running.stop(30, signal.SIGINT)
    assert await ending(running) == Exit(code=5)


async def test_an_exit_is_noted_for_one_who_was_not_there(kit, tmp_path):
    note = tmp_path / "exit"
    note.write_text("3\n")  # of an earlier start
    running = kit.shell("echo here; exec sleep 60", note_exit=note)
    await kit.said("here")
    assert noted_exit(note) is None
    running.release()
    os.killpg(running.pid, signal.SIGTERM)
    await eventually(lambda: noted_exit(note) == Exit(signal=signal.SIGTERM))
    again = Running(running.handle, note_exit=note)
    assert await ending(again) == Exit(signal=signal.SIGTERM)


async def test_another_ones_child_is_watched_and_stopped(kit):
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=2).pid)"
    done = subprocess.run(
        [sys.executable, "-ISc", script], stdout=subprocess.PIPE, check=True, env={MARK: kit.mark, "PATH": os.defpath}
    )
    handle = ProcessHandle.of(int(done.stdout))
    running = Running(handle)
    assert not running.exited.done()
    await running.stop(10, patience=10)
    assert await ending(running) in (Exit(), Exit(signal=signal.SIGTERM))  # the latter where orphans become ours
    assert not handle.alive
    assert await asyncio.to_thread(handle.wait_blocking, 10)


async def test_a_reused_pid_is_another_process(kit):
    running = kit.shell("exec sleep 60")
    other = ProcessHandle(running.pid, running.handle.start_time - 1)
    assert not other.alive
    assert not other.send(signal.SIGKILL)
    assert not other.signal_group(signal.SIGKILL)
    assert other.wait_blocking(0)
    assert Running(other).exited.done()
    assert running.handle.alive
    assert not running.handle.wait_blocking(0)


async def test_a_sweep_kills_the_session_and_those_that_left_it(kit):
    script = "import subprocess; [subprocess.Popen(['sleep', '60'], start_new_session=new) for new in (False, True)]"
    running = kit.spawn(sys.executable, "-ISc", script)
    stranger = spawn(["/bin/sleep", "60"], {MARK: f"{kit.mark}-other"}, kit.root, kit.log, mark=MARK)
    assert await ending(running) == Exit(code=0)
    assert len(processes_with_environment(MARK, kit.mark)) == 2
    await running.sweep()
    assert processes_with_environment(MARK, kit.mark) == []
    assert processes_by_environment(MARK, kit.mark) == {f"{kit.mark}-other": [stranger.handle]}
    await stranger.stop(10)


async def test_a_released_process_continues(kit):
    running = kit.shell("exec sleep 60")
    running.release()
    assert running.exited.cancelled()
    assert running.handle.alive
    await running.stop(0)
    assert running.handle.alive, "nobody watches it, so nobody stops it"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can become another user")
async def test_as_another_user_it_has_that_ones_identity_and_groups(kit):
    account = pwd.getpwnam("nobody")
    groups = sorted({account.pw_gid, *os.getgrouplist("nobody", account.pw_gid)})
    running = spawn(
        ["/bin/sh", "-c", "id -u; id -g; id -G; cat"],
        {"PATH": os.defpath},
        Path("/"),
        kit.log,
        stdin="read\n",
        user=find_user("nobody", "chat"),
    )
    assert await ending(running) == Exit(code=0)
    uid, gid, all_groups, read = kit.log.read_text().splitlines()
    assert (int(uid), int(gid), read) == (account.pw_uid, account.pw_gid, "read")
    assert sorted(map(int, all_groups.split())) == groups
    assert kit.log.stat().st_uid == 0


def test_another_user_is_refused_in_words_unless_root(monkeypatch):
    account = pwd.getpwnam("nobody")
    monkeypatch.setattr(users_module.os, "geteuid", lambda: account.pw_uid)
    with pytest.raises(BackendFailed) as refused:
        find_user("root", "chat")
    words = "only root may start processes of others, and LLMOS isn't root."
    assert refused.value.message == f'chat can\'t run as "root": {words}'
    assert find_user("nobody", "chat") is None, "its own user changes nothing"


def test_a_user_that_does_not_exist():
    with pytest.raises(BackendFailed, match="there is no such user on this machine"):
        find_user("no-such-user", "chat")


async def test_one_that_cannot_be_watched_is_not_left_running(kit, monkeypatch):
    def no_more(pid):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", no_more)
        with pytest.raises(OSError, match="Too many open files"):
            kit.shell("exec sleep 60")
    with contextlib.suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)
    assert processes_with_environment(MARK, kit.mark) == []
