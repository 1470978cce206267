"""A real Valkey for tests: on a unix socket in its own directory, stopped by its pid.

`valkey_server` is one server for the whole session. `redis_url` is its address with an empty database, and `store` a
store on it, both new for each test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from cryptography.fernet import Fernet
from redis.backoff import NoBackoff
from redis.retry import Retry

from llmos_hub.stores import open_store
from llmos_hub.stores.base import Store
from llmos_hub.valkey.server import ServerConfig, find_valkey

__all__ = ["ValkeyServer", "encryption_key", "redis_url", "store", "valkey_factory", "valkey_server"]

_START_TIMEOUT = 20.0


class ValkeyServer:
    """A server process, which can be killed and started again on the same files."""

    def __init__(self, directory: Path, *, appendfsync: str = "always") -> None:
        # sockets need a short path, and pytest's own directories have long ones
        self._sockets = Path(tempfile.mkdtemp(prefix="llmos-valkey-"))
        directory.mkdir(parents=True, exist_ok=True)
        self.config = ServerConfig(socket=self._sockets / "s", directory=directory, password="test:pass/word")
        self.appendfsync = appendfsync
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.config.url

    def client(self) -> redis.Redis:
        """Return a blocking client that bypasses the store; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        text = self.config.render().replace('appendfsync "always"', f'appendfsync "{self.appendfsync}"')
        with (self.config.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                find_valkey().command(), stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        assert self.process.stdin
        self.process.stdin.write(text.encode())
        self.process.stdin.close()
        deadline = time.monotonic() + _START_TIMEOUT
        with contextlib.closing(self.client()) as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.config.directory / "server.log").read_text()
                    message = f"the test Valkey did not start:\n{log_text[-2000:]}"
                    raise RuntimeError(message)
                time.sleep(0.01)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server; with SIGKILL it can't save anything."""
        if self.process is None:
            return
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.stop(number)
        self.start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One server for all tests of this process; don't stop it, use `valkey_factory` for that."""
    with _running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey_factory(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A started server of this test's own, which may be killed and restarted."""
    with _running(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The address of a real, empty database (the value of ``LLMOS_REDIS_URL``)."""
    with contextlib.closing(valkey_server.client()) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture(scope="session")
def encryption_key() -> str:
    """A key for Credentials at rest (the value of ``LLMOS_ENCRYPTION_KEY``)."""
    return Fernet.generate_key().decode()


@pytest.fixture
async def store(redis_url: str, encryption_key: str) -> AsyncIterator[Store]:
    """A store on a real, empty Valkey."""
    opened = open_store(redis_url, encryption_key)
    try:
        yield opened
    finally:
        await opened.close()
