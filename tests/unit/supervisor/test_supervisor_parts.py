"""The small parts of the supervisor: ports, secrets, state files, logs, messages."""

import asyncio
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.errors import Conflict, Forbidden, Unavailable, UsageError
from llmos.files import write_private
from llmos_hub.accounts.password_rules import make_password
from llmos_hub.names import DataDir
from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.supervisor import account_commands, container, disk, state
from llmos_hub.supervisor.account_commands import parse_span
from llmos_hub.supervisor.console import llmos_command
from llmos_hub.supervisor.platform_mark import is_copy, mark_of
from llmos_hub.supervisor.ports import find_free_port, is_free, is_loopback, owner_of
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.state import ProcessRecord, StateFiles
from llmos_hub.supervisor.status import collect, where_to_look


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    found = StateFiles(DataDir(tmp_path / "data"))
    found.prepare()
    yield found
    found.unlock()
    shutil.rmtree(found.data_dir.run)  # outside tmp_path where that is too long for a socket


def test_a_taken_port_names_its_owner(tmp_path):
    script = tmp_path / "listener.py"
    script.write_text(
        "import socket, sys\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), "--for", "tests"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        port = int(process.stdout.readline())
        assert not is_free("127.0.0.1", port)
        owner = owner_of(port)
        process.stdin.close()
    assert owner.pid == process.pid
    assert owner.name.startswith("python")
    assert owner.command == "listener.py --for tests"
    assert str(owner).endswith(f'(pid {process.pid}, "listener.py --for tests")')
    assert is_free("127.0.0.1", port)
    assert owner_of(port) is None


def test_a_module_is_named_as_people_started_it():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        words = process.stdout.readline().decode().split()
        owner = owner_of(int(words[words.index("port") + 1]))
        process.terminate()
        process.stdout.read()
    assert "http.server" in owner.command


def test_an_address_of_another_machine_is_refused_in_words():
    with pytest.raises(Unavailable, match=r"192\.0\.2\.1.* no address of this machine"):
        is_free("192.0.2.1", 8000)


def test_internal_ports_lie_below_those_of_outgoing_connections():
    first = find_free_port()
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < first < max(low, 32000)
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free("127.0.0.1", first)


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_secrets_last_and_are_private(tmp_path):
    path = tmp_path / "secrets.json"
    first = Secrets.load(path)
    assert Secrets.load(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(vars(first).values())) == len(vars(first))


def test_a_secret_of_a_newer_version_is_added_and_the_old_ones_kept(tmp_path):
    path = tmp_path / "secrets.json"
    write_private(path, '{"encryption_key": "kept"}')
    assert Secrets.load(path).encryption_key == "kept"
    assert Secrets.load(path).proxy_token


@pytest.mark.parametrize("content", ["{half a fi", "", "[]", "{}", '{"proxy_token": "a"}', '{"encryption_key": 1}'])
def test_unreadable_secrets_and_a_lost_key_are_never_replaced(tmp_path, content):
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(Unavailable, match="backup"):
        Secrets.load(path)
    assert path.read_text() == content


def test_passwords_can_be_read_aloud_and_differ():
    made = {make_password() for _ in range(50)}
    assert len(made) > 45
    for password in made:
        adjective, animal, number, place = password.split("-")
        assert adjective.isalpha()
        assert animal.isalpha()
        assert place.isalpha()
        assert 10 <= int(number) <= 99


def test_the_data_directory_is_private(files):
    root = files.data_dir.root
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(files.data_dir.run.stat().st_mode) == 0o700


def test_a_data_directory_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Unavailable, match=r"can't be written .*--data-dir"):
        StateFiles(DataDir(blocked / "data")).prepare()


async def test_a_start_waits_until_who_has_stopped_gives_the_lock_back(files):
    """The last status of a stop names no supervisor any more, while its process still has the lock."""
    files.lock()
    files.write_status({"supervisor": None, "processes": {}, "stopping": True})
    second, waits = StateFiles(files.data_dir), asyncio.Event()
    starting = asyncio.create_task(second.lock_after_stop(waits.set))
    await waits.wait()
    assert not starting.done()
    files.unlock()
    await starting
    with pytest.raises(Conflict):
        files.lock()
    second.unlock()


async def test_a_start_does_not_wait_for_one_that_runs(files):
    files.lock()
    files.write_status({"supervisor": None, "processes": {}, "stopping": False})
    with pytest.raises(Conflict, match="already runs"):
        await StateFiles(files.data_dir).lock_after_stop(lambda: pytest.fail("it waits"))


def test_one_supervisor_at_a_time(files):
    files.lock()
    second = StateFiles(files.data_dir)
    with pytest.raises(Conflict, match=rf"pid {os.getpid()}\).*llmos down"):
        second.lock()
    files.unlock()
    second.lock()
    second.unlock()


HOLDER = """
import sys
from pathlib import Path
from llmos_hub.names import DataDir
from llmos_hub.supervisor.state import StateFiles
files = StateFiles(DataDir(Path(sys.argv[1])))
files.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_platform_of_an_older_version_is_known_by_its_lock(files, tmp_path):
    """The supervisor of an older version is found by its lock, so that `llmos down` can stop it."""
    root = files.data_dir.root
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            process = ProcessHandle.of(holder.pid)
            said = {"pid": process.pid, "start_time": process.start_time}
            files.write_status({"supervisor": said, "instance": "a random word"})
            assert files.supervisor() == process
            # a copy has no supervisor, also one made of hard links
            for copy, how in (("copy", shutil.copy2), ("links", os.link)):
                shutil.copytree(root, tmp_path / copy, copy_function=how)
                assert StateFiles(DataDir(tmp_path / copy)).supervisor() is None
            shutil.rmtree(tmp_path / "links")
            assert files.supervisor() == process
            own = ProcessHandle.of(os.getpid())
            other = {"pid": own.pid, "start_time": own.start_time}
            files.write_status({"supervisor": other, "instance": "a random word"})
            assert files.supervisor() is None
            files.write_status({"supervisor": said, "instance": "a random word"})
        finally:
            holder.communicate()
    assert files.supervisor() is None
    # without the lock, the pid in the file doesn't count
    (root / "supervisor.lock").write_text(f"{os.getpid()}\n")
    files.write_status({"supervisor": other, "instance": "a random word"})
    assert files.supervisor() is None
    files.lock()
    files.unlock()


def test_a_newer_layout_is_left_alone(files):
    write_private(files.data_dir.root / "platform.json", '{"schema": 99, "ports": {"hub": 1}}')
    with pytest.raises(Unavailable, match="newer LLMOS"):
        files.migrate()
    assert files.ports == {"hub": 1}


def test_ports_and_admin_are_kept_side_by_side(files):
    files.migrate()
    files.note(ports={"hub": 20001})
    files.note(admin="grace")
    again = StateFiles(files.data_dir)
    assert (again.ports, again.admin) == ({"hub": 20001}, "grace")


def test_a_data_directory_that_cannot_even_be_looked_for_is_refused_in_words(tmp_path):
    with pytest.raises(Unavailable, match=r"can't be written .*Choose another: --data-dir"):
        StateFiles(DataDir(tmp_path / ("x" * 300))).prepare()


def test_the_command_is_given_as_it_can_be_typed_here(monkeypatch, tmp_path):
    place = tmp_path / "checkout" / ".venv" / "bin"
    place.mkdir(parents=True)
    (place / "llmos").touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(place.parent))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path / "checkout")
    assert llmos_command() == ".venv/bin/llmos"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert llmos_command().endswith("checkout/.venv/bin/llmos")
    monkeypatch.setenv("PATH", str(place))
    assert llmos_command() == "llmos"


def test_records_of_dead_or_other_processes_are_not_believed(files):
    own = ProcessHandle.of(os.getpid())
    files.write_record("api", ProcessRecord(own.pid, own.start_time, "f", 1.0, files.mark))
    files.write_record("proxy", ProcessRecord(own.pid, own.start_time, "f", 1.0, "of the original"))
    files.write_record("hub", ProcessRecord(own.pid, own.start_time + 1, "f", 1.0, files.mark))
    (files.data_dir.run / "processes" / "gateway.json").write_text("{half")
    assert list(files.records()) == ["api"]


def test_on_a_full_disk_the_status_is_still_that_of_what_runs(files, monkeypatch):
    own = ProcessHandle.of(os.getpid())
    dead = {"state": "BackOff", "reason": "killed by signal 9", "pid": None, "start_time": None, "since": 1.0}
    ready = {"state": "Ready", "reason": "", "pid": own.pid, "start_time": own.start_time, "since": 2.0}

    def write(told: dict[str, object], instance: str = files.mark) -> None:
        files.write_status({"instance": instance, "supervisor": {}, "processes": {"gateway": {**told, "log": "x"}}})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StateFiles, "supervisor", lambda _: own)
    write(dead)
    monkeypatch.setattr(state, "write_private", full)
    write(ready)
    assert files.records() == {}
    [gateway] = collect(files.data_dir)["processes"]
    assert (gateway["state"], gateway["reason"], gateway["pid"]) == ("Ready", "", own.pid)
    write(ready, instance="of the original")
    [gateway] = collect(files.data_dir)["processes"]
    assert (gateway["state"], gateway["pid"]) == ("Stopped", None)


@pytest.mark.parametrize(
    ("free", "error"), [(0, Unavailable), (10**9, Forbidden)], ids=["a full disk", "a disk with room"]
)
def test_what_a_hub_refuses_that_cannot_write_is_said_with_the_reason(tmp_path, monkeypatch, free, error):
    class Refusing:
        async def one_time_password(self, *_: object, **__: object) -> None:
            raise Forbidden("Missing or invalid credentials.")

    monkeypatch.setattr(account_commands, "_hub", lambda _: (Refusing(), "admin"))
    monkeypatch.setattr(disk, "free_space", lambda _: disk.FreeSpace(free, None))
    with pytest.raises(error, match="is full .* Make room" if error is Unavailable else "invalid credentials"):
        account_commands.add_user(DataDir(tmp_path), "bob", admin=False)


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("30m", 1800), ("12h", 43200), ("30d", 2592000)])
def test_time_spans(text, seconds):
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "0d", "1 year"])
def test_time_spans_that_are_none(text):
    with pytest.raises(UsageError, match="30d"):
        parse_span(text)


@pytest.mark.parametrize(
    ("limit", "line"), [("536870912\n", "maxmemory 357913941\n"), ("max\n", ""), ("", ""), (None, "")]
)
def test_valkeys_data_is_bounded_by_its_containers_memory(tmp_path: Path, limit: str | None, line: str):
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    assert container._memory(file) == line


@pytest.mark.parametrize(
    ("now", "copy"),
    [
        ({"path": "/a", "device": 1, "inode": 2}, False),
        ({"path": "/b", "device": 1, "inode": 2}, False),  # renamed
        ({"path": "/a", "device": 9, "inode": 2}, False),  # the machine started again
        ({"path": "/b", "device": 1, "inode": 3}, True),
        ({"path": "/a", "device": 1, "inode": 3}, True),  # restored from a backup
        ({"path": "/b", "device": 9, "inode": 2}, True),  # an image of the file system
    ],
)
def test_a_copy_is_told_from_a_rename(now, copy):
    assert is_copy({"path": "/a", "device": 1, "inode": 2}, now) is copy
    assert not is_copy({}, now)


def test_the_mark_stays_at_a_rename_and_differs_in_a_copy(tmp_path):
    (tmp_path / "a").mkdir()
    before = mark_of(DataDir(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    assert mark_of(DataDir(tmp_path / "b")) == before
    assert mark_of(DataDir(tmp_path / "c")) not in ("", before)
    assert mark_of(DataDir(tmp_path / "nowhere")) == ""


@pytest.mark.parametrize("name", ["a\nb", "a:b"])
def test_what_ends_a_line_or_an_entry_of_path_is_refused_in_the_path(tmp_path, name):
    with pytest.raises(Unavailable, match="--data-dir") as refused:
        StateFiles(DataDir(tmp_path / name)).prepare()
    assert repr(name[1]) in refused.value.message
    assert not (tmp_path / name).exists()


def test_in_a_notebook_server_nobody_is_told_to_start_a_platform():
    assert "llmos up" in where_to_look({})
    said = where_to_look({"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"})
    assert "llmos up" not in said
    assert "--data-dir DIR" in said
