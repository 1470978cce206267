"""The data directory: special characters in its path, copies of it, and lost or damaged parts."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
import redis

from llmos_hub.names import DataDir
from llmos_hub.supervisor.recovery import recover
from llmos_hub.supervisor.state import StateFiles
from llmos_hub.valkey.schema import SCHEMA_VERSION, Keys
from tests.support.platform import Platform, running_platform, wait_until

AOF = Path("valkey") / "appendonlydir"


def listening_ports(pid):
    """Return the TCP ports on which a process listens."""
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(str(link.readlink()))
    inodes = {target[8:-1] for target in targets if target.startswith("socket:")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in inodes and line[3] == "0A"}


def test_any_name_will_do(tmp_path):
    name = "a [x]* b#c?d e%20 'f\" {g}"
    with running_platform(tmp_path / name) as platform:
        valkey = platform.handle("valkey")
        assert listening_ports(valkey.pid) == set()
        sockets = list(Path(platform.run_dir / "valkey").iterdir())
        assert [path.name for path in sockets] == ["valkey.sock"]
        with (
            redis.Redis(unix_socket_path=str(sockets[0])) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        with platform.sdk() as client:
            client.serve("demo://tiny", name="tiny", timeout=60)
        assert (platform.root / "hub" / "jupyterhub.sqlite").stat().st_size > 0
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.out"])
        url = platform.start_server("admin", platform.token("admin"))
        assert url
        assert platform.run("status").returncode == 0
        # a symbolic link leads to the same platform
        (tmp_path / "link").symlink_to(platform.root, target_is_directory=True)
        assert Platform(tmp_path / "link").status()["dataDir"] == str(platform.root)


def test_a_name_that_is_filled_in_elsewhere_is_refused(tmp_path):
    done = Platform(tmp_path / "data{port}").run("up")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "{port}" in done.stderr
    assert "--data-dir" in done.stderr


def test_a_copy_leaves_the_original_alone(tmp_path):
    with running_platform(tmp_path / "data") as original:
        original.add_user("ada")
        token = original.token("ada")
        original.start_server("ada", token)
        with original.sdk() as client:
            client.serve("demo://tiny", name="tiny", timeout=60)
            before = {handle.pid for handle in original.marked()}
            shutil.copytree(original.root, tmp_path / "copy", symlinks=True, ignore=sockets)
            copy = Platform(tmp_path / "copy")
            try:
                assert "runs" not in copy.run("status").stdout.splitlines()[0].replace("does not run", "")
                assert "Nothing was running" in copy.run("down").stdout
                before_up = copy.run("user", "password", "ada")  # its files have the original's address and secrets
                assert (before_up.returncode, f"is a copy of {original.root}" in before_up.stderr) == (1, True)
                copy.start()
                assert f"is a copy of {original.root}" in copy.output
                with copy.sdk() as second:
                    for progress in second.modelservices.progress("tiny", timeout=60):
                        last = progress
                    assert last.ready
                assert copy.hub("GET", "/users/ada", token=copy.token("ada")).json()["servers"] == {}
            finally:
                copy.stop()
            assert copy.marked() == []
            assert {handle.pid for handle in original.marked()} == before
            assert client.modelservices.get("tiny").status.ready_replicas == 1
            assert original.hub("GET", "/users/ada", token=token).json()["servers"][""]["ready"]


def sockets(directory, names):
    return [name for name in names if (Path(directory) / name).is_socket()]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return a stopped platform with a Credential; each test uses a copy of it."""
    root = tmp_path_factory.mktemp("stopped") / "data"
    with running_platform(root) as platform, platform.sdk() as client:
        client.credentials.apply({"kind": "Credential", "metadata": {"name": "key"}, "spec": {"data": {"A": "b"}}})
    return root


@pytest.fixture
def hurt(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "data", symlinks=True, ignore=sockets)
    platform = Platform(tmp_path / "data")
    yield platform
    platform.stop()
    platform.clean_up()


def refused(platform, *words):
    """Return the error of `up`, which must be one line that contains these texts."""
    done = platform.run("up", "--port", str(platform.port), "--gateway-port", str(platform.gateway_port), timeout=60)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 1, done.stdout
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert platform.marked() == []
    return lines[0]


def kept(directory, name):
    return [path for path in directory.iterdir() if path.name.startswith(f"{name}.before-")]


@pytest.mark.parametrize("how", ["lost", "unreadable"])
def test_bad_secrets_are_refused_and_made_on_request(hurt, how):
    path = hurt.root / "secrets.json"
    if how == "lost":
        path.unlink()
        refused(hurt, "secrets.json is lost", "--recover secrets")
        assert not path.exists()
        said = []
        recover("secrets", DataDir(hurt.root), StateFiles(DataDir(hurt.root)), said.append)
        assert "existing Credentials can't be decrypted" in said[0]
        assert hurt.secrets  # the start is as below
    else:
        path.write_text("{half")
        refused(hurt, "can't be read", "--recover secrets")
        hurt.options = ("--recover", "secrets")
        hurt.start()
        assert "existing Credentials can't be decrypted" in hurt.output
        assert [path.read_text() for path in kept(hurt.root, "secrets.json")] == ["{half"]


def test_a_database_of_a_newer_version_is_refused_at_once(hurt):
    words = [b"SET", Keys.schema.encode(), b"%d" % (SCHEMA_VERSION + 1)]
    with max((hurt.root / AOF).glob("*.incr.aof")).open("ab") as log:
        log.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    line = refused(hurt, "newer LLMOS")
    assert f"layout {SCHEMA_VERSION + 1}" in line


def test_a_damaged_database_is_refused_and_repaired_on_request(hurt):
    newest = max((hurt.root / AOF).glob("*.incr.aof"))
    content = newest.read_bytes()
    damaged = content + b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nnonsense\r\n"
    newest.write_bytes(damaged)
    refused(hurt, "is damaged", "--recover database")
    assert newest.read_bytes() == damaged
    hurt.options = ("--recover", "database")
    hurt.start()
    assert f"of {newest.name} are left out" in hurt.output
    with hurt.sdk() as client:
        assert [credential.metadata.name for credential in client.credentials.list()] == ["key"]
    [before] = kept(hurt.root / "valkey", "appendonlydir")
    assert (before / newest.name).read_bytes() == damaged


@pytest.mark.parametrize("how", ["manifest", "incr", "everything", "emptied"])
def test_a_lost_database_is_refused_and_an_empty_one_made_on_request(hurt, how):
    directory = hurt.root / AOF
    if how == "manifest":
        (directory / "appendonly.aof.manifest").unlink()
    elif how == "incr":
        max(directory.glob("*.incr.aof")).unlink()
    elif how == "everything":
        shutil.rmtree(hurt.root / "valkey")
    else:
        for path in directory.glob("*.aof"):
            path.write_bytes(b"")
    refused(hurt, "The database in", "--recover empty-database")
    if how == "emptied":  # the other cases end the same way
        hurt.options = ("--recover", "empty-database")
        hurt.start()
        assert "The database is empty" in hurt.output
        with hurt.sdk() as client:
            assert list(client.credentials.list()) == []
        assert kept(hurt.root, "valkey")


@pytest.mark.parametrize("how", ["lost", "zero", "nobody", "damaged"])
def test_a_hub_without_people_is_refused_and_made_anew_on_request(hurt, how):
    path = hurt.root / "hub" / "jupyterhub.sqlite"
    if how == "lost":
        path.unlink()
    elif how == "zero":
        path.write_bytes(b"")
    elif how == "damaged":
        path.write_bytes(b"nonsense" * 1000)
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM users")
            database.commit()
    refused(hurt, "jupyterhub.sqlite", "nobody could log in", "--recover people")
    if how == "damaged":  # the other cases end the same way
        hurt.environment = {}
        hurt.options = ("--recover", "people")
        hurt.start()
        line = next(line for line in hurt.output.splitlines() if "one-time password" in line)
        with hurt.browser("admin", line.split()[-1]) as browser:
            assert browser.get("/hub/home").status_code == 200


# Starting and stopping


def test_up_waits_for_a_stop_that_is_under_way_and_runs_on_after_its_terminal(tmp_path):
    with running_platform(tmp_path / "data") as platform:
        platform.handle("gateway").send(signal.SIGSTOP)  # so that the stop takes a while
        first = platform.process
        down = subprocess.Popen(
            [*platform.command, "down", "--data-dir", str(platform.root)], stdout=subprocess.PIPE, text=True
        )
        wait_until(lambda: '"stopping": true' in (platform.run_dir / "status.json").read_text(), 30, "it is stopping")
        platform.start(timeout=120)
        assert "is being stopped; starting once it is" in platform.output
        assert down.wait(60) == 0
        down.stdout.close()
        assert first.wait(30) == 0
        assert platform.status()["running"]
        before = {handle.pid for handle in platform.marked()}
        platform.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the terminal was closed; LLMOS continues to run" in platform.output, 30, "it says so")
        assert {handle.pid for handle in platform.marked()} == before
        assert platform.run("down", timeout=120).returncode == 0


def test_detached_it_gives_the_terminal_back_once_it_is_ready(tmp_path):
    platform = Platform(tmp_path / "data")
    arguments = ["up", "--detach", "--port", str(platform.port), "--gateway-port", str(platform.gateway_port)]
    try:
        done = platform.run(*arguments, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "LLMOS is ready." in done.stdout
        assert "down" in done.stdout
        assert "Ctrl-C" not in done.stdout
        assert platform.status()["running"]
        again = platform.run(*arguments)
        assert again.returncode == 1
        assert "already runs" in again.stderr
        assert platform.run("down", timeout=120).returncode == 0
    finally:
        platform.clean_up()
