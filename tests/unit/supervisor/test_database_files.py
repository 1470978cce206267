"""The embedded database: damaged files, their repair, and a server with wrong settings."""

import asyncio
import io
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmos.errors import Unavailable
from llmos_hub.supervisor.database_files import explain_exit, refuse_lost_files, repair, sound_length
from llmos_hub.supervisor.store_check import StoreCheck
from llmos_hub.valkey.server import ServerConfig, find_valkey
from tests.support.waiting import eventually

SET = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n1\r\n2\r\n"
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        (b"", 0),
        (SET * 2, 2 * len(SET)),
        (SET + SET[:-3], len(SET)),
        (SET + b"nonsense" + SET, len(SET)),
        (SET + b"*1\r\n$99999\r\nx\r\n", len(SET)),
        (SET + b"*0\r\n" + SET, len(SET)),
        (b"#TS:1700000000\r\n" + SET, 16 + len(SET)),
        (SET + MULTI + SET, len(SET)),
        (SET + MULTI + SET + EXEC, 2 * len(SET) + len(MULTI) + len(EXEC)),
        (SET + MULTI + SET + b"*x", len(SET)),
    ],
)
def test_what_is_whole(content, sound):
    assert sound_length(io.BytesIO(content)) == sound


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a Valkey directory with valid files."""
    directory = tmp_path / "appendonlydir"
    directory.mkdir()
    (directory / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    (directory / "appendonly.aof.1.base.rdb").write_bytes(b"VALKEY")
    (directory / "appendonly.aof.1.incr.aof").write_bytes(SET)
    return tmp_path


def test_whole_files_are_let_be(files):
    refuse_lost_files(files)
    with pytest.raises(Unavailable, match=r"Nothing .* can be repaired.*--recover empty-database"):
        repair(files)


@pytest.mark.parametrize("name", ["appendonly.aof.manifest", "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"])
def test_a_lost_file_is_named(files, name):
    (files / "appendonlydir" / name).unlink()
    with pytest.raises(Unavailable, match=rf"{name}.*backup.*--recover empty-database"):
        refuse_lost_files(files)


def test_damage_before_newer_files_is_not_cut_off(files):
    directory = files / "appendonlydir"
    with (directory / "appendonly.aof.manifest").open("a") as manifest:
        manifest.write("file appendonly.aof.2.incr.aof seq 2 type i\n")
    (directory / "appendonly.aof.1.incr.aof").write_bytes(SET + b"?")
    (directory / "appendonly.aof.2.incr.aof").write_bytes(SET)
    with pytest.raises(Unavailable, match="newer files build on it"):
        repair(files)
    assert (directory / "appendonly.aof.1.incr.aof").read_bytes() == SET + b"?"


def test_only_words_about_its_files_are_explained():
    said = "12:M 28 Nov 2026 16:37:19.502 # Bad file format reading the append only file x.rdb: make a backup of it"
    words = explain_exit(Path("/data/valkey"), ["something", said])
    assert "/data/valkey is damaged (Bad file format reading the append only file x.rdb)" in words
    assert "--recover database" in words
    assert explain_exit(Path("/data/valkey"), ["12:M # Could not create server TCP listening socket"]) is None


@asynccontextmanager
async def server(text: str):
    process = await asyncio.create_subprocess_exec(
        *find_valkey().command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    process.stdin.write(text.encode())
    process.stdin.close()
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
def config():
    place = Path(tempfile.mkdtemp(prefix="llmos-check-"))
    yield ServerConfig(socket=place / "s", directory=place, password="secret")
    shutil.rmtree(place)


async def answer(check: StoreCheck) -> str | None:
    """Return the result of the check once the server is up."""

    async def found() -> tuple[str | None] | None:
        words = await check.check()
        return None if words and ("No such file" in words or "refused" in words) else (words,)

    return (await eventually(found))[0]


async def test_a_server_as_it_should_be(config):
    async with server(config.render()):
        assert await answer(StoreCheck(config.url, config.directory)) is None
        with pytest.raises(Unavailable, match="is empty"):
            await answer(StoreCheck(config.url, config.directory, known="before"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('requirepass "secret"', ""), "answers without a password"),
        (('port "0"', 'port "{port}"'), "listens on the network"),
        (("dir ", "dir /tmp\n# "), "keeps its files in /tmp"),
    ],
)
async def test_a_server_that_is_open_or_elsewhere_is_refused(config, change, words):
    from llmos_hub.supervisor.ports import find_free_port

    text = config.render().replace('appendonly "yes"', 'appendonly "no"')
    text = text.replace(change[0], change[1].replace("{port}", str(find_free_port())))
    url = config.url if "password" not in words else f"unix://{config.socket}"
    async with server(text):
        with pytest.raises(Unavailable, match=words):
            await answer(StoreCheck(url, config.directory))
