"""The chart's other containers, with a real Valkey and real files."""

import os
import socket
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import redis

from llmos_hub.supervisor import backup, container
from tests.support.helm import CHART
from tests.support.waiting import wait_until

PASSWORD = 'pass"word\\1'


def program(*words, **environment):
    command = [sys.executable, "-P", "-m", "llmos_hub.supervisor.container", *map(str, words)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def answers(client: redis.Redis, process: subprocess.Popen) -> bool:
    assert process.poll() is None
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    """Valkey started as the chart does, with the chart's configuration but for port and directory."""
    directory = tmp_path_factory.mktemp("valkey")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = (CHART / "files" / "valkey.conf").read_text()
    config = config.replace("port 6379", f"port {port}").replace("dir /var/lib/valkey", f"dir {directory}")
    (directory / "valkey.conf").write_text(config.replace("bind * -::*", "bind 127.0.0.1"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llmos_hub.supervisor.container", "valkey", str(directory / "valkey.conf")],
        env={**os.environ, "VALKEY_PASSWORD": PASSWORD},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    client = redis.Redis(port=port, password=PASSWORD, socket_timeout=5, decode_responses=True)
    try:
        wait_until(lambda: answers(client, process), what="an answer of Valkey")
        yield client, directory, port, process.pid
    finally:
        client.close()
        process.terminate()
        process.wait(10)


def test_the_password_is_in_no_argument_and_not_in_the_environment(valkey):
    *_, pid = valkey
    for name in ("cmdline", "environ"):
        with Path(f"/proc/{pid}/{name}").open("rb") as file:
            assert b"word" not in file.read()


def test_writes_are_on_disk_before_the_answer(valkey):
    client, directory, *_ = valkey
    assert client.config_get("append*") == {
        "appendonly": "yes",
        "appendfsync": "always",
        "appendfilename": "appendonly.aof",
        "appenddirname": "appendonlydir",
    }
    client.set("k", "acknowledged")
    assert any(b"acknowledged" in path.read_bytes() for path in (directory / "appendonlydir").iterdir())


def test_the_probe_answers_for_valkey(valkey, monkeypatch, capsys):
    _, _, port, _ = valkey
    real = socket.create_connection
    monkeypatch.setattr(
        container.socket, "create_connection", lambda address, timeout: real((address[0], port), timeout)
    )
    monkeypatch.setenv("VALKEY_PASSWORD", PASSWORD)
    assert container.main(["ping-valkey"]) == 0
    monkeypatch.setenv("VALKEY_PASSWORD", "wrong")
    assert container.main(["ping-valkey"]) == 1
    assert "WRONGPASS" in capsys.readouterr().err


def test_the_probe_fails_where_nothing_listens(monkeypatch, capsys):
    def refuse(address, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(container.socket, "create_connection", refuse)
    monkeypatch.setenv("VALKEY_PASSWORD", "x")
    assert container.main(["ping-valkey"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_wrong_words_are_told_the_right_ones():
    done = program("serve")
    assert done.returncode == 2
    assert "ping-valkey" in done.stderr


def test_the_copied_code_configures_a_hub_on_its_own(tmp_path):
    """The code as in a Hub of another image: without package metadata, and only with the Hub's dependencies."""
    assert program("copy-code", tmp_path).returncode == 0
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from traitlets.config import Config\n"
        "from llmos_hub.jupyterhub_config import Tokens, configure\n"
        "import llmos_hub; assert llmos_hub.__file__.startswith(sys.argv[1])\n"
        "for name in ('pydantic', 'redis', 'kubernetes', 'httpx', 'yaml'): assert name not in sys.modules, name\n"
        "c = Config()\n"
        "configure(c, api_url='http://a', gateway_url='http://g', tokens=Tokens('x', 'y'), hub_version=(5, 5))\n"
        "print([s['name'] for s in c.JupyterHub.services])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "['llmos', 'llm']\n", done.stderr


def test_the_copied_spawner_needs_nothing_that_a_hub_on_kubernetes_lacks(tmp_path):
    assert program("copy-code", tmp_path).returncode == 0
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in ('httpx', 'redis', 'starlette', 'uvicorn', 'kubernetes', 'cryptography', 'httpcore'):\n"
        "    sys.modules[name] = None\n"
        "import llmos_spawners.environment, llmos_spawners.kubernetes as found\n"
        "assert found.__file__.startswith(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# Backups


def test_a_backup_of_valkey_restores(valkey, tmp_path, monkeypatch, capsys):
    client, directory, port, _ = valkey
    client.set("kept", "yes")
    monkeypatch.setenv("LLMOS_REDIS_URL", f"redis://:pass%22word%5C1@127.0.0.1:{port}/0")
    assert backup.main(["valkey", str(directory), str(tmp_path), "2"]) == 0
    (made,) = tmp_path.glob("valkey-*.tar.gz")
    assert str(made) in capsys.readouterr().out
    restored = tmp_path / "restored"
    with tarfile.open(made) as tar:
        tar.extractall(restored, filter="data")
    content = b"".join(path.read_bytes() for path in (restored / "appendonlydir").iterdir())
    assert b"kept" in content
    assert client.config_get("auto-aof-rewrite-percentage") == {"auto-aof-rewrite-percentage": "100"}


def test_a_backup_of_the_hub_is_whole_while_it_writes(tmp_path):
    source = tmp_path / "jupyterhub.sqlite"
    database = sqlite3.connect(source)
    database.execute("create table users (name text)")
    database.execute("insert into users values ('ada')")
    database.commit()
    database.execute("insert into users values ('grace')")  # not committed
    target = tmp_path / "backups"
    target.mkdir()
    assert backup.main(["hub", str(source), str(target), "3"]) == 0
    database.close()
    (made,) = target.iterdir()
    assert made.stat().st_mode & 0o077 == 0
    plain = tmp_path / "plain.sqlite"
    plain.write_bytes(subprocess.run(["gzip", "-dc", str(made)], capture_output=True, check=True).stdout)
    copy = sqlite3.connect(plain)
    assert copy.execute("select name from users").fetchall() == [("ada",)]
    copy.close()


def test_a_database_that_is_missing_is_said_and_leaves_nothing(tmp_path, capsys):
    assert backup.main(["hub", str(tmp_path / "none.sqlite"), str(tmp_path), "3"]) == 1
    assert "none.sqlite can't be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_backups_are_kept(tmp_path):
    for day in range(5):
        (tmp_path / f"hub-2026010{day}T031700Z.sqlite.gz").touch()
    (tmp_path / "valkey-20260101T031700Z.tar.gz").touch()
    removed = backup.prune(tmp_path, "hub", 2)
    assert len(removed) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "hub-20260103T031700Z.sqlite.gz",
        "hub-20260104T031700Z.sqlite.gz",
        "valkey-20260101T031700Z.tar.gz",
    ]
